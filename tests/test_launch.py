"""The command line: a newcomer's mistakes are one clear paragraph and exit code 2; --help is no mistake."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from rmjax import launch
from rmjax.runs import evaluate, optimize_policy, score, train_reward

TINY = "--config=configs/reward.py:tiny"
SMALL = (TINY, "--config.parallel=one_device()", "--config.model=tiny_encoder(width=8, layers=1)")


def command(monkeypatch, capsys, run, *arguments, config="configs/reward.py:ratings"):
    """Exit code and what was printed to either stream."""
    monkeypatch.setattr("sys.argv", ["prog", *arguments])
    try:
        launch.main(run, config=config)
        code = 0
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


@pytest.fixture
def fails(monkeypatch, capsys, tmp_path):
    """Runs a command that must fail the right way; gives its paragraph."""

    def check(run, *arguments):
        code, out, err = command(monkeypatch, capsys, run, *arguments)
        assert code == 2 and out == ""
        *before, last = err.strip().split("\n")
        assert last.startswith("error: ") and "Traceback" not in err
        assert all(line.startswith("fetching ") for line in before)
        return last

    return check


# Flag -> what its paragraph must hold: the place, and a way out.
CONFIG_MISTAKES = {
    "--config.lerning_rate=1": ("no --config.lerning_rate", "--help"),
    "--config.batchsize=8": ("did you mean --config.batch_size?",),
    "--config.epochs=ten": ("config.epochs=ten", "float"),
    "--config.seeds=1.5": ("config.seeds=1.5", "int"),
    "--config.remat=maybe": ("config.remat=maybe", "oolean"),
    "--config=configs/reward.py:nope": ("'nope'", "tiny"),
    "--config=configs/none.py": ("no file 'configs/none.py'", "FILE.py:NAME"),
    "--config=": ("no file ''",),
    "--wrkdir=runs/a": ("did you mean --workdir?",),
    "--nonsense": ("no --nonsense", "--help"),
    "stray": ("'stray' is no flag",),
    "--config.loss=bradly_terry()": ("'loss'", "did you mean 'bradley_terry'?"),
    "--config.loss=mse(": ("'loss'", "cannot read 'mse('"),
    "--config.loss=bradley_terry(label_smoothing=2.0)": ("'loss'", "label_smoothing", "2.0"),
    "--config.loss=hinge(margn=2.0)": ("'loss'", "did you mean 'margin'?"),
    "--config.loss=bradley_terry()": ("'loss'", "group_size"),
    "--config.loss=ordinal()": ("'loss'", "head='ordinal()'"),
    "--config.schedule=linear()": ("'schedule'", "peak"),
    "--config.schedule=linear(peak=1e-3, warmup=2.0)": ("warmup", "2.0"),
    "--config.optimizer=adam()": ("'optimizer'", "did you mean 'adamw'?"),
    "--config.clip_norm=-1": ("clip_norm",),
    "--config.rates={": ("'rates'",),
    '--config.rates={"(": 1}': ("'rates'",),
    "--config.frozen=(": ("frozen",),
    "--config.frozen=nothing": ("'frozen'", "matches no parameter"),
    "--config.dtype=float16": ("'dtype'", "bfloat16"),
    "--config.dropout=1.5": ("'dropout'", "1.5"),
    "--config.batch_size=0": ("'batch_size'", "at least 1"),
    "--config.seed=-1": ("'seed'", "negative"),
    "--config.epochs=nan": ("'epochs'", "positive and finite"),
    "--config.max_length=4": ("'max_length'", "8..512"),
    "--config.max_length=4096": ("'max_length'", "8..512"),
    "--config.pair_arrays=margins": ("'pair_arrays'", "margins"),
    "--config.parallel=mesh(data=3)": ("'parallel'", "needs 3 devices", "there are 8"),
    "--config.model=tiny_encoder(width=33)": ("'model'", "33"),
    "--config.model=tiny_encoder(pooling='max')": ("'model'", "'max'", "mean"),
    "--config.model=pretrained(source='nowhere')": ("'model'", "'nowhere'", "tokenizer.json"),
    "--config.data=file(path='none.jsonl')": ("none.jsonl", "no such file"),
}


@pytest.mark.parametrize("mistake", CONFIG_MISTAKES)
def test_a_mistake_in_a_config_line(fails, tmp_path, mistake):
    first = () if mistake.startswith("--config=") else SMALL
    text = fails(train_reward.run, *first, mistake, f"--workdir={tmp_path / 'run'}")
    for part in CONFIG_MISTAKES[mistake]:
        assert part in text
    assert not (tmp_path / "run").exists()  # nothing was begun


def test_workdir_missing_a_file_or_not_to_be_made(fails, tmp_path):
    assert "--workdir must be given" in fails(train_reward.run, TINY)
    (tmp_path / "file").write_text("")
    assert "is a file" in fails(train_reward.run, TINY, f"--workdir={tmp_path}/file")
    text = fails(train_reward.run, *SMALL, f"--workdir={tmp_path}/file/run")
    assert "cannot be written to: Not a directory" in text


def test_a_bad_line_of_data_is_named(fails, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "fine", "rating": 1}\n{"text": \n{"words": "no text"}\n')
    text = fails(train_reward.run, TINY, f"--config.data=file(path={str(path)!r})", "--workdir=x")
    assert f"{path}: line 2: is not JSON" in text and "line 3: needs" in text


def test_half_a_surrogate_pair_is_no_text(fails, tmp_path):
    path = tmp_path / "cut.jsonl"
    path.write_text('{"text": "fine", "rating": 1}\n{"text": "cut \\ud83d", "rating": 1}\n')
    text = fails(train_reward.run, TINY, f"--config.data=file(path={str(path)!r})", "--workdir=x")
    assert f"{path}: line 2: is not JSON in UTF-8" in text and "surrogates" in text


def test_a_cache_that_cannot_be_written_to(fails, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RMJAX_CACHE", str(tmp_path / "file/cache"))
    text = fails(
        train_reward.run, "--config=configs/reward.py:ratings", f"--workdir={tmp_path / 'run'}"
    )
    assert "file/cache cannot be written to: Not a directory; set RMJAX_CACHE" in text


def test_a_config_value_that_no_flag_can_hold(fails, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import ml_collections\ndef get_config(): return ml_collections.ConfigDict({'sizes': (1, 2)})"
    )
    assert "key 'sizes' is (1, 2)" in fails(train_reward.run, f"--config={path}", "--workdir=x")


def test_a_config_file_with_a_fault_of_its_own(fails, tmp_path):
    path = tmp_path / "mine.py"
    for content, part in {"def": "SyntaxError", "x = 1": "get_config", "import nope": "nope"}.items():  # fmt: skip
        path.write_text(content)
        assert part in fails(train_reward.run, f"--config={path}", "--workdir=x")


def test_no_network_and_an_empty_cache(fails, tmp_path, monkeypatch):
    monkeypatch.setenv("RMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    text = fails(
        train_reward.run, "--config=configs/reward.py:ratings", f"--workdir={tmp_path / 'run'}"
    )
    assert "could not fetch human ratings" in text and "vaderSentiment-3.3.2.tar.gz" in text
    assert str(tmp_path / "cache/downloads") in text and "sha256" in text


def test_other_commands_name_what_they_lack(fails, tmp_path):
    assert "--data must be given" in fails(evaluate.run, "--workdir=x")
    assert "results.json does not exist" in fails(evaluate.run, f"--workdir={tmp_path}", "--data=x")
    assert "holds no checkpoints/best" in fails(score.run, f"--workdir={tmp_path}")


@pytest.mark.parametrize("flag", ["--help", "-h", "-?"])
def test_help_lists_flags_and_config_keys(monkeypatch, capsys, flag):
    code, out, err = command(monkeypatch, capsys, train_reward.run, TINY, "--config.seed=5", flag)
    assert code == 0 and err == ""
    assert out.startswith("Trains the reward model") and "--workdir: folder of this run" in out
    assert "--config.loss='mse()'" in out and "--config.seed=5" in out
    assert "\n    movie:   MiniLM on the movie snippets alone.\n" in out  # names that --config has
    code, out, _ = command(monkeypatch, capsys, score.run, flag)
    assert code == 0 and "--input: file of JSON lines" in out and "--config" not in out


def test_lines_are_changed_and_typed_and_the_config_stays_locked(monkeypatch, capsys):
    seen = {}

    def run(*, config: ConfigDict, workdir: str, times: int = 2) -> None:
        """Runs.

        Args:
          config: file.
          workdir: folder.
          times: how often.
        """
        seen.update(config=config, workdir=workdir, times=times)

    flags = ["--config", "configs/reward.py:tiny", "--config.epochs=2", "--config.remat"]
    flags += ["--config.loss=huber(delta=0.5) + 0.1 * mae()", "--workdir=a", "--config.seed=-3"]
    code, *_ = command(monkeypatch, capsys, run, *flags)
    config = seen["config"]
    assert code == 0 and (seen["workdir"], seen["times"]) == ("a", 2)
    assert (config.epochs, config.remat, config.seed, config.seeds) == (2.0, True, -3, 1)
    assert type(config.epochs) is float and config.loss == "huber(delta=0.5) + 0.1 * mae()"
    flags += [
        "--config.loss.mae.coef=0.3",
        "--config.loss.huber.delta=2.0",
        "--config.schedule.peak=1e-3",
    ]
    assert command(monkeypatch, capsys, run, *flags)[0] == 0
    assert seen["config"].loss == "huber(delta=2.0) + 0.3 * mae()"
    assert seen["config"].schedule == "linear(peak=0.001)"
    code, _, error = command(monkeypatch, capsys, run, *flags, "--config.loss.mea.coef=1")
    assert code == 2 and "does not name 'mea'; did you mean 'mae'" in error
    with pytest.raises(AttributeError):
        config.new_key = 1


def test_an_interrupt_says_that_the_run_can_go_on(monkeypatch, capsys):
    def run(*, workdir: str) -> None:
        """Runs.

        Args:
          workdir: folder.
        """
        raise KeyboardInterrupt

    code, _, err = command(monkeypatch, capsys, run, "--workdir=a")
    assert code == 130 and "goes on from the last checkpoint" in err


def test_our_own_faults_keep_their_traceback(monkeypatch, capsys):
    def run(*, workdir: str) -> None:
        """Runs.

        Args:
          workdir: folder.
        """
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command(monkeypatch, capsys, run, f"--workdir={os.sep}")


def test_a_launcher_of_several_runs_wants_one_named_first(monkeypatch, capsys):
    seen = []

    def one(*, count: int = 1):
        """Counts.

        Args:
          count: how many.
        """
        seen.append(count)

    def other(*, config: ConfigDict) -> None:
        """Counts nothing.

        Args:
          config: file.
        """

    several = {"one": one, "other": other}
    for arguments in ((), ("--count=2",), ("two",)):
        code, _, err = command(monkeypatch, capsys, several, *arguments)
        assert code == 2 and "say first which: one, other" in err
    assert command(monkeypatch, capsys, several, "one", "--count=2")[0] == 0
    assert seen == [2]
    code, out, _ = command(monkeypatch, capsys, several, "one", "--help")
    assert code == 0 and "--count: how many. [1]" in out


def test_each_of_several_runs_has_its_own_config(monkeypatch, capsys):
    seen = {}

    def first(*, config: ConfigDict) -> None:
        """Looks.

        Args:
          config: file.
        """
        seen["first"] = config.get("max_prompt")

    def second(*, config: ConfigDict) -> None:
        """Looks too.

        Args:
          config: file.
        """
        seen["second"] = config.get("max_prompt")

    configs = {"first": TINY.removeprefix("--config="), "second": "configs/policy.py:tiny_rloo"}
    for name in ("first", "second"):
        monkeypatch.setattr("sys.argv", ["prog", name])
        launch.main({"first": first, "second": second}, config=configs)
    assert seen == {"first": None, "second": 24}


@pytest.mark.parametrize(
    ("run", "config", "key"),
    [
        (train_reward.run, "configs/policy.py:tiny", "seeds"),
        (optimize_policy.run, TINY.removeprefix("--config="), "max_prompt"),
    ],
)  # fmt: skip
def test_a_config_of_another_command_is_said_to_be(fails, tmp_path, run, config, key):
    paragraph = fails(run, f"--config={config}", f"--workdir={tmp_path / 'new'}")
    assert f"has no key {key}" in paragraph and "is of another command" in paragraph
    assert not (tmp_path / "new").exists()


def test_a_reader_that_has_seen_enough_is_no_fault_of_ours():
    code = (
        "from rmjax import launch\ndef run():\n    while True: print('x' * 9999)\nlaunch.main(run)"
    )
    talker = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert talker.stdout.read(5) == b"xxxxx"
    talker.stdout.close()
    assert talker.stderr.read() == b"" and talker.wait() == 0


def test_a_command_keeps_the_memory_it_frees_in_every_thread():
    code = """
import ctypes
import resource
import threading
from rmjax import launch
from rmjax.runs import train_reward  # starts threads

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = libc.free.argtypes = [ctypes.c_size_t]

def use():
    size = 2**27
    held = libc.malloc(size)
    ctypes.memset(held, 1, size)
    libc.free(held)

def run():
    faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    before = faults()
    for _ in range(5):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    print(faults() - before)

launch.main(run)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10_000  # of 5 x 32,768 pages


def test_help_of_several_runs_lists_them(monkeypatch, capsys):
    def first():
        """Does one thing."""

    def second():
        """Does another."""

    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    with pytest.raises(SystemExit) as ended:
        launch.main({"first": first, "second": second})
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert re.search(r"first +Does one thing\.\nsecond +Does another\.\n", printed)


@pytest.mark.parametrize("flags", [[], ["--nocompilation_cache"]])
def test_compiled_programs_are_kept_unless_asked_not_to(flags, tmp_path):
    case = Path("tests/golden/cases/llama_pad_is_eos")
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-m", "experiments.score", f"--model={case}/model", *flags]
    done = subprocess.run(
        [*command, f"--input={case}/input.jsonl"],
        env=environment | {"RMJAX_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    kept = [*(tmp_path / "programs").glob("*-cache")]
    assert bool(kept) == ("compiled programs are kept in" in done.stderr) == (not flags)
