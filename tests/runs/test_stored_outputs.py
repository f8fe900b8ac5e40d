"""Stored classifiers of several outputs, their scored token and their special tokens, in every command."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import special

from rmjax.errors import UserError
from rmjax.inference import scoring, stored
from rmjax.inference.scored import parsed
from rmjax.rl import reward_functions
from rmjax.rl.packing import Texts
from rmjax.runs import evaluate, score, train_reward
from rmjax.runs import export as run_export
from tests.golden import parity
from tests.runs.conftest import config, write_jsonl
from tests.runs.test_reward_functions import lines

GOLDEN = parity.read()["cases"]
ATTRIBUTES, REVERSED, STEPS, ENDS = (
    parity.CASES / name / "model"
    for name in ("attributes_regression", "reversed_labels", "token_classification", "trl_llama3_reward")
)  # fmt: skip


def rows_of(folder):
    text = (folder.parent / "input.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def logits_of(folder):
    return np.array([row["logits"] for row in GOLDEN[folder.parent.name]])


def scored(model, rows, target, **flags):
    """What experiments.score adds to rows."""
    source = write_jsonl(target.with_suffix(".in"), rows)
    score.run(model=str(model), input=str(source), output=str(target), **flags)
    return [json.loads(line) for line in target.read_text("utf-8").splitlines()]


def test_what_is_ambiguous_is_refused_with_the_choices(tmp_path):
    for folder, named in (
        (ATTRIBUTES, "helpfulness, correctness, .*--output=helpfulness; or --weights="),
        (REVERSED, "POSITIVE, NEUTRAL, NEGATIVE. Say which is the score: --output=POSITIVE"),
    ):
        with pytest.raises(UserError, match=named):
            scored(folder, rows_of(folder), tmp_path / "out")
        with pytest.raises(UserError, match=named):
            evaluate.run(workdir=str(tmp_path), model=str(folder), data="synthetic_pairs()")
        made = lines(reward="learned()", reward_model=str(folder))
        with pytest.raises(UserError, match="config key reward_output="):
            reward_functions.make(made, "reward", {}, whole=True)
    with pytest.raises(UserError, match='needs "steps".*this is a process model'):
        scored(STEPS, rows_of(STEPS), tmp_path / "out")


def test_an_attribute_a_label_or_a_weighted_sum_is_the_score(tmp_path):
    def check(folder, want, **flags):
        asked = stored.Asked(**flags)
        found = stored.load(str(folder), asked=asked)
        records = [parsed(row, "", "pairs") for row in rows_of(folder)]
        np.testing.assert_allclose(found.records(records)[0], want, rtol=1e-4, atol=1e-5)

    regression, classes = logits_of(ATTRIBUTES), logits_of(REVERSED)
    shares = special.softmax(classes, axis=-1)
    check(ATTRIBUTES, regression[:, 0], output="helpfulness")
    check(
        ATTRIBUTES,
        regression[:, 0] - 0.5 * regression[:, 4],
        weights="helpfulness=1,verbosity=-0.5",
    )
    check(ATTRIBUTES, regression[:, 1], weights="{'correctness': 1.0}")
    check(REVERSED, shares[:, 0], output="POSITIVE")
    check(REVERSED, classes[:, 2], output="NEGATIVE", logit=True)
    check(REVERSED, shares[:, 0] - shares[:, 2], weights="POSITIVE=1,NEGATIVE=-1")
    for flags, message in (
        (
            {"output": "kindness"},
            "--output: .* has no output kindness; there are POSITIVE, NEUTRAL",
        ),
        ({"weights": "POSITIVE"}, "--weights='POSITIVE': write names and numbers"),
        ({"output": "POSITIVE", "weights": "POSITIVE=1"}, "each says what the score is; give one"),
    ):
        with pytest.raises(UserError, match=message):
            stored.load(str(REVERSED), asked=stored.Asked(**flags))
    with pytest.raises(UserError, match="has one output, which is the score; leave --output away"):
        stored.load(str(ENDS), asked=stored.Asked(output="LABEL_0"))
    with pytest.raises(UserError, match="--logit: only labels and classes"):
        stored.load(str(ATTRIBUTES), asked=stored.Asked(output="helpfulness", logit=True))


def test_independent_labels_have_probabilities_of_their_own(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(REVERSED, folder)
    about = json.loads((folder / "config.json").read_text())
    about["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(about))
    found = stored.load(str(folder), asked=stored.Asked(output="NEUTRAL"))
    records = [parsed(row, "", "pairs") for row in rows_of(REVERSED)]
    want = special.expit(logits_of(REVERSED)[:, 1])
    np.testing.assert_allclose(found.records(records)[0], want, rtol=1e-4)


def test_output_names_an_output_or_a_file_of_score(tmp_path, capsys):
    source = write_jsonl(tmp_path / "in.jsonl", rows_of(ATTRIBUTES))
    score.run(model=str(ATTRIBUTES), input=str(source), output="helpfulness")
    found = [json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(found, logits_of(ATTRIBUTES)[:, 0], rtol=1e-4)


def test_a_process_model_scores_the_end_of_each_step(tmp_path):
    rows = [{"prompt": "1+1?", "steps": ["one and one", "so 2"]}, {"steps": ["no"]}]
    found = scored(STEPS, rows, tmp_path / "out")
    assert [len(line["step_scores"]) for line in found] == [2, 1]
    assert all(line["score"] == min(line["step_scores"]) for line in found)
    scorer = stored.load(str(STEPS))
    made = scorer.scored([parsed(row, "", "processes") for row in rows])
    odds = made.outputs["logits"][0, ..., 1] - made.outputs["logits"][0, ..., 0]
    np.testing.assert_allclose(odds[0], found[0]["step_scores"], rtol=1e-5)
    data = write_jsonl(
        tmp_path / "p.jsonl", [{**row, "labels": [1] * len(row["steps"])} for row in rows]
    )
    told = evaluate.run(workdir=str(tmp_path), model=str(STEPS), data=str(data))["metrics"]
    assert told["p/step_accuracy"]["steps"] == 3


def test_classes_are_evaluated_in_the_order_of_their_names(tmp_path):
    rows = [
        {"prompt": row["prompt"], "completion": row["completion"], "label": label}
        for row, label in zip(rows_of(REVERSED), ("NEGATIVE", "NEGATIVE", "NEGATIVE", "POSITIVE"), strict=True)
    ] + [{"text": "x", "label": "NEUTRAL"}]  # fmt: skip
    assert (logits_of(REVERSED).argmax(1) == 2).all()  # each is NEGATIVE by the model
    data = write_jsonl(tmp_path / "d.jsonl", rows)
    flags = {"workdir": str(tmp_path), "model": str(REVERSED), "data": str(data)}
    found = evaluate.run(**flags, output="POSITIVE")
    other = stored.load(str(REVERSED), asked=stored.Asked(output="POSITIVE"))
    last = other.scored([parsed({"text": "x"}, "", "pairs")]).outputs["logits"][0, 0]
    right = 3 + (last.argmax() == 1)  # the POSITIVE one is wrong
    assert found["metrics"]["d/accuracy"]["value"] == pytest.approx(right / 5)
    renamed = write_jsonl(tmp_path / "e.jsonl", [row | {"label": row["label"][:3]} for row in rows])
    other = evaluate.run(**flags | {"data": str(renamed)}, output="POSITIVE")
    assert any("no class accuracy: the model's outputs are not" in note for note in other["notes"])


@pytest.mark.parametrize("case", ["gone", "doubled"])
def test_a_head_that_does_not_fit_its_config_is_an_error_in_every_command(case, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(ENDS, folder)
    arrays = load_file(folder / "model.safetensors")
    head = arrays.pop("score.weight")
    if case == "doubled":
        arrays["score.weight"] = np.concatenate([head, head])
    save_file(arrays, folder / "model.safetensors")
    message = {"gone": "the weights hold no head for it", "doubled": "the head has 2 outputs"}[case]
    train = lambda model, name: train_reward.run(
        config=config(data="synthetic_pairs(count=20)", model=model, loss="bradley_terry()", epochs=0.2),
        workdir=str(tmp_path / name),
    )  # fmt: skip
    for run in (
        lambda: scored(folder, rows_of(ENDS), tmp_path / "out"),
        lambda: evaluate.run(workdir=str(tmp_path), model=str(folder), data="synthetic_pairs()"),
        lambda: train(f"pretrained(source={str(folder)!r})", "run"),
    ):
        with pytest.raises(UserError, match=message):
            run()
    assert train(f"pretrained(source={str(folder)!r}, new_head=True)", "new")["finished"]


def test_retraining_at_rate_0_and_exporting_again_keeps_the_scores(tmp_path):
    want = json.loads((ENDS.parent / "expected.json").read_text())["correct"]
    lines = config(
        data="synthetic_pairs(count=20)", model=f"pretrained(source={str(ENDS)!r})", max_length=512,
        loss="bradley_terry()", epochs=1.0, schedule="constant(peak=0.0)", weight_decay=0.0, frozen="",
    )  # fmt: skip
    results = train_reward.run(config=lines, workdir=str(tmp_path / "run"))
    assert "scored at the token before <|eot_id|>" in results["notes"]
    done = run_export.run(workdir=str(tmp_path / "run"), output=str(tmp_path / "out"))
    assert not done["remote_code"]
    about = json.loads((tmp_path / "out/config.json").read_text())
    assert about["pad_token_id"] == 1  # <|eot_id|>, as the folder had it
    for source in ({"workdir": str(tmp_path / "run")}, {"model": str(tmp_path / "out")}):
        rows = write_jsonl(tmp_path / "in.jsonl", rows_of(ENDS))
        score.run(**source, input=str(rows), output=str(tmp_path / "scored"))
        found = [json.loads(x)["score"] for x in (tmp_path / "scored").read_text().splitlines()]
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    assert scoring.load(tmp_path / "run").notes == ["scored at the token before <|eot_id|>"]


def test_classes_are_trained_in_the_order_of_the_data(tmp_path):
    """At rate 0, so that the head is the stored one: outputs follow their names."""
    texts = [row["completion"] for row in rows_of(REVERSED)] * 10
    labels = ["NEGATIVE", "NEUTRAL", "POSITIVE"] * 14
    rows = [{"text": f"{t} {i}", "label": labels[i]} for i, t in enumerate(texts)]
    data = write_jsonl(tmp_path / "d.jsonl", rows)
    line = f"file(path={str(data)!r}, validation={str(data)!r}, test={str(data)!r})"
    made = lambda data: config(
        data=data, model=f"pretrained(source={str(REVERSED)!r})", head="classes(hidden=True)", max_length=100,
        loss="cross_entropy()", epochs=0.2, schedule="constant(peak=0.0)", weight_decay=0.0,
    )  # fmt: skip
    train_reward.run(config=made(line), workdir=str(tmp_path / "run"))
    records = [parsed(row, "", "pairs") for row in rows_of(REVERSED)]
    found = scoring.load(tmp_path / "run").scored(records).outputs["logits"][0]
    np.testing.assert_allclose(found, logits_of(REVERSED)[:, ::-1], rtol=1e-4, atol=1e-5)
    other = write_jsonl(tmp_path / "e.jsonl", [row | {"label": row["label"][:3]} for row in rows])
    line = f"file(path={str(other)!r}, validation={str(other)!r}, test={str(other)!r})"
    with pytest.raises(
        UserError, match="outputs are POSITIVE, NEUTRAL, NEGATIVE, and the data has"
    ):
        train_reward.run(config=made(line), workdir=str(tmp_path / "no"))


def test_probabilities_of_a_classifier_need_no_choice():
    made = lines(reward="class_probability(label=2)", reward_model=str(REVERSED))
    found = reward_functions.make(made, "reward", {}, whole=False)
    rows = rows_of(REVERSED)
    texts = Texts(
        [r["prompt"] for r in rows], [r["completion"] for r in rows], [""] * 4, np.ones(4, bool)
    )
    want = special.softmax(logits_of(REVERSED), axis=-1)[:, 2]
    np.testing.assert_allclose(found(texts), want, rtol=1e-4)
    chosen = lines(reward="learned()", reward_model=str(REVERSED), reward_output="POSITIVE")
    found = reward_functions.make(chosen, "reward", {}, whole=False)
    want = special.softmax(logits_of(REVERSED), axis=-1)[:, 0]
    np.testing.assert_allclose(found(texts), want, rtol=1e-4)


def test_special_tokens_of_a_text_are_special_or_text(tmp_path):
    folder = parity.CASES / "special_in_text/model"
    want = json.loads((folder.parent / "expected.json").read_text())["correct"]
    as_such = scored(folder, rows_of(folder), tmp_path / "a")
    np.testing.assert_allclose([line["score"] for line in as_such], want, rtol=1e-4)
    text = scored(folder, rows_of(folder), tmp_path / "b", special_tokens="text")
    assert all(abs(a["score"] - b["score"]) > 1e-3 for a, b in zip(as_such, text, strict=True))
    with pytest.raises(UserError, match="special_tokens='words': must be parse"):
        scored(folder, rows_of(folder), tmp_path / "c", special_tokens="words")


def test_nothing_is_cut_unless_asked(tmp_path, capsys):
    folder = parity.CASES / "longer_than_model_max_length/model"
    want = json.loads((folder.parent / "expected.json").read_text())["correct"]
    (whole,) = scored(folder, rows_of(folder), tmp_path / "a")
    assert whole["score"] == pytest.approx(want[0], rel=1e-4)
    capsys.readouterr()
    (cut,) = scored(folder, rows_of(folder), tmp_path / "b", max_length=64)
    assert abs(cut["score"] - want[0]) > 1e-3
    assert "1 texts cut at 64 tokens" in capsys.readouterr().err
    bert = parity.CASES / "bert_cross_encoder/model"  # 128 learned positions
    with pytest.raises(
        UserError, match=r"line 2' has \d+ tokens, .* positions for 128 alone; --max_length=128"
    ):
        scored(bert, [{"text": "a"}, {"text": "a " * 200}], tmp_path / "c")
    scored(bert, [{"text": "a " * 200}], tmp_path / "c", max_length=128)
    with pytest.raises(UserError, match="--max_length=129: must be 0"):
        scored(bert, [{"text": "a"}], tmp_path / "d", max_length=129)


def test_an_empty_text_without_a_token_of_beginning_is_an_error(tmp_path):
    made = json.loads((ENDS / "tokenizer.json").read_text())
    folder = tmp_path / "model"
    shutil.copytree(ENDS, folder)
    (folder / "tokenizer.json").write_text(json.dumps(made | {"post_processor": None}))
    with pytest.raises(UserError, match="line 2' holds an empty text, and .* no token around it"):
        scored(folder, [{"text": "a"}, {"text": ""}], tmp_path / "out")


def test_whole_conversations_are_scored_whoever_speaks_last(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    asked = {"role": "user", "content": "What is 2+2?"}
    said = {"role": "assistant", "content": "It is 4."}
    rows = [
        {"messages": [asked, said]},
        {"prompt": [asked], "completion": "It is 4."},
        {"prompt": "What is 2+2?", "response": "It is 4."},
        {"messages": [system, asked, said]},
        {"messages": [system, asked]},
        {"messages": [asked, said | {"reasoning_content": "2 and 2"}]},
    ]
    one, two, three, four, five, six = (x["score"] for x in scored(ENDS, rows, tmp_path / "out"))
    assert one == pytest.approx(two, rel=1e-5) == pytest.approx(three, rel=1e-5)
    assert one == pytest.approx(six, rel=1e-5)  # this template renders no reasoning
    assert len({round(x, 3) for x in (one, four, five)}) == 3
