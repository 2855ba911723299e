"""What a user gets wrong: one sentence, exit code 2, nothing left behind; and files that are damaged."""

import dataclasses
import json
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from ga3c.checkpoint import (
    Progress,
    _digest,
    load_network,
    load_optimiser,
    read_checkpoint,
    read_newest,
    write_checkpoint,
)
from ga3c.cli import run
from ga3c.config import TrainConfig, config_from_json, read_config
from ga3c.errors import UsageError
from ga3c.folder import FORMAT
from ga3c.metrics_writer import _drop_torn_line
from ga3c.optim import build_optimiser

TRAIN = ["train", "CartPole-v1"]


def a_run(folder):
    """A run's folder as training leaves it, but for its weights."""
    (folder / "run").mkdir()
    config = TrainConfig(env="CartPole-v1", network="mlp", min_training_batch=16)
    (folder / "run" / "config.json").write_text(json.dumps(config.to_json()))
    tensors = {"network.weight": torch.zeros(2), "optimiser.0.step": torch.zeros(())}
    write_checkpoint(folder / "run", config, Progress(10, 1, 1.0), tensors, keep=3)


def a_damaged_config(folder):
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text('{"actors": "four"}')


def a_run_without_checkpoint(folder):
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(json.dumps(TrainConfig(env="CartPole-v1", network="mlp").to_json()))


def no_checkpoint(folder):
    (folder / "file").write_text("not a checkpoint")


def a_film(folder):
    (folder / "film.gif").write_bytes(b"")


def a_newer_checkpoint(folder):
    (folder / "file").write_bytes(save({"network.w": torch.zeros(1)}, {"format": "99"}))


def an_empty_comparison(folder):
    (folder / "empty").mkdir()
    (folder / "empty" / "results.jsonl").touch()


def a_module(folder):
    (folder / "mine.py").write_text("number = 3\ndef other(shape, actions):\n    return number\n")


TABLE = [
    # commands
    ([], None, "usage"),
    (["trian"], None, "unknown command 'trian'; train, eval, play, report, export, compare, tune, networks would be"),
    # options that there are not, or without what they need
    (["train", "--acters", "3"], None, "unrecognized options: --acters, 3; --actors INT would be right"),
    (["train", "Pong-v5", "Breakout-v5"], None, "unrecognized options: Breakout-v5"),
    (["train", "--actors"], None, "missing value for argument '--actors'"),
    (["train", "--actors", "many"], None, "--actors: invalid literal for int() with base 10: 'many'; --actors INT"),
    (["train", "--actors", "2.5"], None, "'2.5'; --actors INT would be right"),
    (["train", "--learning-rate", "fast"], None, "could not convert string to float: 'fast'; --learning-rate FLOAT"),
    (["train", "--minutes", "1e"], None, "'1e'"),
    (["train", "--precision", "fp99"], None, "invalid choice 'fp99' for argument '--precision'. Expected one of"),
    (["train", "--mode", "ppo"], None, "invalid choice 'ppo'"),
    (["train", "--optimiser", "sgd"], None, "invalid choice 'sgd'"),
    (["train", "--on-env-error", "ignore"], None, "invalid choice 'ignore'"),
    (["eval"], None, "got no run; run folders or checkpoints would be right"),
    (["eval", ".", "--episodes", "ten"], None, "'ten'"),
    (["networks", "--fitt"], None, "unrecognized options: --fitt; --fit would be right"),
    (["compare", "--repeats", "x"], None, "'x'"),
    # numbers out of range
    ([*TRAIN, "--actors", "0"], None, "--actors: got 0; 1 to 1024 would be right"),
    ([*TRAIN, "--actors", "-4"], None, "--actors: got -4"),
    ([*TRAIN, "--envs-per-actor", "0"], None, "--envs-per-actor: got 0"),
    ([*TRAIN, "--predictors", "0"], None, "--predictors: got 0"),
    ([*TRAIN, "--trainers", "65"], None, "--trainers: got 65; 1 to 64 would be right"),
    ([*TRAIN, "--t-max", "0"], None, "--t-max: got 0"),
    ([*TRAIN, "--segments", "1"], None, "--segments: got 1; 2 to 64 would be right"),
    ([*TRAIN, "--min-training-batch", "-1"], None, "--min-training-batch: got -1"),
    ([*TRAIN, "--max-prediction-batch", "0"], None, "--max-prediction-batch: got 0"),
    ([*TRAIN, "--total-steps", "0"], None, "--total-steps: got 0"),
    ([*TRAIN, "--minutes", "0"], None, "--minutes: got 0"),
    ([*TRAIN, "--minutes", "nan"], None, "--minutes: got nan"),
    ([*TRAIN, "--seed", "-1"], None, "--seed: got -1"),
    ([*TRAIN, "--checkpoint-every", "0"], None, "--checkpoint-every: got 0"),
    ([*TRAIN, "--keep", "0"], None, "--keep: got 0"),
    ([*TRAIN, "--learning-rate", "-1"], None, "--learning-rate: got -1"),
    ([*TRAIN, "--learning-rate", "inf"], None, "--learning-rate: got inf"),
    ([*TRAIN, "--discount", "1.1"], None, "--discount: got 1.1; 0 to 1 would be right"),
    ([*TRAIN, "--gae-lambda", "2"], None, "--gae-lambda: got 2"),
    ([*TRAIN, "--entropy-cost", "-1"], None, "--entropy-cost: got -1"),
    ([*TRAIN, "--value-cost", "-1"], None, "--value-cost: got -1"),
    ([*TRAIN, "--max-grad-norm", "-1"], None, "--max-grad-norm: got -1"),
    ([*TRAIN, "--decay", "1"], None, "--decay: got 1"),
    ([*TRAIN, "--epsilon", "-1"], None, "--epsilon: got -1"),
    ([*TRAIN, "--actor-timeout", "0"], None, "--actor-timeout: got 0"),
    ([*TRAIN, "--torch-threads", "0"], None, "--torch-threads: got 0"),
    (["train", "--noop-max", "-1"], None, "--noop-max: got -1"),
    (["train", "--sticky-actions", "2"], None, "--sticky-actions: got 2"),
    (["train", "--frame-stack", "0"], None, "--frame-stack: got 0"),
    ([*TRAIN, "--mode", "a2c", "--dynamic"], None, "--dynamic: got climb, but mode a2c does not use it"),
    ([*TRAIN, "--dynamic", "--actors", "0"], None, "--actors: got 0"),
    (["tune", "--minutes", "0.1"], None, "--minutes: got 0.1; at least 0.25 would be right"),
    (["tune", "--max-lag", "-1"], None, "--max-lag: got -1; at least 0 would be right"),
    (["tune", "--total-steps", "5"], None, "--total-steps is not of ga3c tune's"),
    (["tune", "--mode", "a2c"], None, "the tuner is for mode ga3c"),
    (["tune", "--objective", "fun"], None, "--objective"),
    (["tune", "Pnog-v5"], None, "nearest: Pong-v5"),
    (["eval", ".", "--episodes", "0"], None, "--episodes: got 0; at least 1 would be right"),
    (["eval", ".", "--seed", "-1"], None, "--seed: got -1"),
    (["report"], None, "got no folder; those of runs or comparisons would be right"),
    (["report", "run", "--ouf", "x.html"], None, "unrecognized options"),
    (["play", ".", "--episodes", "0"], None, "--episodes: got 0; 1 to 1e+06 would be right"),
    (["play", ".", "--seconds", "-1"], None, "--seconds: got -1"),
    (["play", ".", "--fps", "0"], None, "--fps: got 0.0; 1 to 100 would be right"),
    (["play", ".", "--scale", "0"], None, "--scale: got 0; 1 to 16 would be right"),
    (["play", ".", "--seed", "-1"], None, "--seed: got -1"),
    ([*TRAIN, "--record-every", "0"], None, "--record-every: got 0"),
    (["tune", "--record-every", "5"], None, "--record-every is not of ga3c tune's"),
    (["tune", "--dynamic"], None, "--dynamic is not of ga3c tune's; leave it out"),
    # what there is not
    (["train", "Pnog-v5"], None, "nearest: Pong-v5"),
    (["train", "ALE/Pnog-v5"], None, "nearest"),
    (["train", "no_such_module:Env-v0"], None, "importing 'no_such_module' gave ModuleNotFoundError"),
    (["train", "--backend", "envpool", "Nope-v0"], None, "EnvPool has no environment 'Nope-v0'"),
    (["train", "--backend", "gymnasium", "Nope-v5"], None, "Gymnasium has no environment 'Nope-v5'"),
    (["train", ":CartPole-v1"], None, "importing '' gave ValueError"),
    (["train", "--anneal", "False"], None, "neither EnvPool nor Gymnasium has an environment 'False'"),
    (["train", "--preset", "fats"], None, "--preset: got 'fats'; nearest: fast; fast, paper, or a file of ga3c tune's"),
    ([*TRAIN, "--network", "mpl"], None, "unknown network 'mpl'; nearest: mlp"),
    ([*TRAIN, "--network", "no_such_module:net"], None, "network 'no_such_module:net' cannot be loaded"),
    ([*TRAIN, "--network", "mine:missing"], a_module, "network 'mine:missing' cannot be loaded: AttributeError"),
    ([*TRAIN, "--network", "mine:number"], a_module, "network 'mine:number' is a int; something to call is needed"),
    ([*TRAIN, "--network", "mine:other"], a_module, "network 'mine:other' is a int; a torch.nn.Module is needed"),
    ([*TRAIN, "--device", "tpu"], None, "--device: got 'tpu'; auto, cpu, cuda, cuda:N or"),
    ([*TRAIN, "--device", "cuda:01"], None, "--device: got 'cuda:01'"),
    ([*TRAIN, "--device", "cuda:99999999999"], None, "--device: got 'cuda:99999999999'"),
    (["networks", "--fit", "--device", "simulated:null"], None, "got 'simulated:null', which computes nothing"),
    ([*TRAIN, "--device", "cuda:99"], None, "--device: got 'cuda:99', but this machine has"),
    ([*TRAIN, "--device", "simulated:nul"], None, "unknown simulated device 'nul'; nearest: null"),
    # spaces that are not supported
    (["train", "Pendulum-v1", "--backend", "gymnasium"], None, "Discrete actions are needed"),
    (["train", "Blackjack-v1", "--backend", "gymnasium"], None, "a Box is needed"),
    # what does not go together
    ([*TRAIN, "--network", "small"], None, "try mlp"),
    ([*TRAIN, "--frame-skip", "2"], None, "--frame-skip: only Atari games have it, and CartPole-v1 is none"),
    ([*TRAIN, "--precision", "tf32"], None, "--precision: tf32 needs --device cuda, got cpu"),
    ([*TRAIN, "--actors", "1", "--envs-per-actor", "1", "--t-max", "5", "--min-training-batch", "100"], None,
     "have at most 5 samples waiting; that or less would be right"),
    ([*TRAIN, "--mode", "a2c", "--predictors", "2"], None, "--predictors: got 2, but mode a2c does not use it"),
    ([*TRAIN, "--mode", "a3c", "--envs-per-actor", "4"], None, "but mode a3c does not use it"),
    ([*TRAIN, "--mode", "a2c", "--actors", "2"], None, "--actors: got 2, but mode a2c does not use it"),
    ([*TRAIN, "--mode", "a3c", "--min-training-batch", "9"], None, "but mode a3c does not use it"),
    ([*TRAIN, "--actor-diversity"], None, "but mode ga3c does not use it"),
    ([*TRAIN, "--device", "simulated:titan-x-maxwell"], None, "has no curve for network mlp"),
    (["eval", ".", "--greedy", "--sample"], None, "got --greedy and --sample; one of them would be right"),
    (["compare", "--modes", "ga3c", "--minutes", "3"], None, "--minutes is the comparison's own to choose"),
    (["compare", "--modes", "dqn"], None, "'dqn'"),
    (["compare", "--networks", "tiny"], None, "'tiny'"),
    (["compare", "--repeats", "0"], None, "--repeats: got 0; at least 1 would be right"),
    (["compare", "--minutes-each", "0.01"], None, "--minutes-each: got 0.01; at least"),
    # folders and files
    ([*TRAIN, "--out", "run"], a_run, "--out: run holds a run already; --resume run would go on with it"),
    ([*TRAIN, "--out", "run"], a_run_without_checkpoint, "stopped before its first update, so another folder would"),
    (["train", "--resume", "run", "--out", "b"], a_run, "--out: got b beside --resume; a resumed run goes on in its"),
    (["train", "--resume", "run", "--preset", "paper"], a_run, "--preset: got paper beside --resume; a resumed run"),
    ([*TRAIN, "--out", "file"], no_checkpoint, "--out: file cannot be written to"),
    ([*TRAIN, "--out", "/proc/nowhere/run"], None, "cannot be written to"),
    (["train", "--resume", "nowhere"], None, "--resume: nowhere does not exist"),
    (["train", "--resume", "."], None, "is no run folder: it has no config.json"),
    (["train", "--resume", "run"], a_damaged_config, "config.json cannot be read: actors is 'four'"),
    (["train", "--resume", "run"], a_run_without_checkpoint, "run holds no checkpoint"),
    (["train", "--resume", "run"], a_run, "holds the weights of another network"),
    (["eval", "nowhere"], None, "nowhere does not exist; a run's folder or a checkpoint would be right"),
    (["eval", "."], None, "holds no checkpoint"),
    (["eval", "file"], no_checkpoint, "file cannot be read as a checkpoint"),
    (["eval", "file"], a_newer_checkpoint, "file has checkpoint format 99; this version of ga3c reads 2"),
    (["eval", "run"], a_run, "holds the weights of another network"),
    (["eval", "run", "./run"], a_run, "got the run of run more than once; each run once would"),
    (["eval", "run", "run/checkpoint-000000000010.safetensors"], a_run, "the run of run more than once"),
    (["eval", "nowhere", "run"], a_run, "nowhere does not exist"),
    (["report", "nowhere"], None, "nowhere does not exist; the folder of a run or of a comparison would be right"),
    (["report", "."], None, "is neither a run's folder nor a comparison's: no config.json, no results.jsonl"),
    (["report", "file"], no_checkpoint, "file is neither a run's folder nor a comparison's"),
    (["report", "run"], a_damaged_config, "config.json cannot be read: actors is 'four'; the folder of a run"),
    (["report", "run", "run"], a_run, "got run more than once; each folder once would be right"),
    (["report", "empty"], an_empty_comparison, "empty: its record is empty"),
    (["report", "run", "--out", "nowhere/x.html"], a_run, "--out: nowhere/x.html cannot be written to; a file in a"),
    (["report", "run", "--out", "run"], a_run, "--out: run cannot be written to"),
    (["report", "run", "--out", "/proc/x.html"], a_run, "--out: /proc/x.html cannot be written to"),
    (["train", "--resume", "run", "--total-steps", "10"], a_run, "holds the weights of another network"),
    (["export"], None, "PATH"),
    (["export", "run", "--format", "keras"], None, "invalid choice 'keras' for argument '--format'"),
    (["export", "run", "--format", "torch", "--out", "x.onnx"], a_run, "got x.onnx; a name that ends in .pt2 would be"),
    (["export", "nowhere"], None, "nowhere does not exist; a run's folder or a checkpoint would be right"),
    (["export", "nowhere", "--format", "torch"], None, "nowhere does not exist"),
    (["export", "."], None, "holds no checkpoint"),
    (["export", "file"], no_checkpoint, "file cannot be read as a checkpoint"),
    (["export", "run"], a_run, "holds the weights of another network"),
    (["play"], None, "PATH"),
    (["play", "nowhere"], None, "nowhere does not exist; a run's folder or a checkpoint would be right"),
    (["play", "."], None, "holds no checkpoint"),
    (["play", "run"], a_run, "holds the weights of another network"),
    (["play", ".", "--out", "film.avi"], None, "--out: got film.avi; a name that ends in .mp4 or .gif would be right"),
    (["play", ".", "--out", "film.gif"], a_film, "--out: film.gif is there already; another name would be right"),
    (["play", ".", "--out", "nowhere/film.gif"], None, "a file in a folder that exists would be right"),
    (["play", ".", "--live"], None, "--live: there is no display, and the output is no terminal"),
    (["play", ".", "--live", "--explain"], None, "--explain draws in a window or a film, and there is no display"),
    ([*TRAIN, "--record-every", "5", "--device", "simulated:null"], None, "a simulated device learns nothing"),
    (["networks", "--out", "/proc/nowhere/curves.json"], None, "/proc/nowhere/curves.json cannot be written to"),
]  # fmt: skip


def test_the_table_is_long_enough():
    assert len(TABLE) >= 60


@pytest.mark.parametrize(("arguments", "setup", "words"), TABLE, ids=lambda value: None)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, monkeypatch, capsys, arguments, setup, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    if setup is not None:
        setup(tmp_path)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    began = time.monotonic()
    code = run(list(arguments))
    took = time.monotonic() - began
    said = capsys.readouterr()
    assert code == 2
    assert words in " ".join((said.err if arguments else said.out).split())
    assert "Traceback" not in said.err
    if arguments:
        assert said.err.startswith("ga3c: ")
        assert len(said.err.strip().splitlines()) == 1, said.err
        assert said.out == "" or arguments[0] == "networks"
    assert took < 20  # on a busy machine; 3 s alone
    after = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    assert after == before, "something was left behind"


def refused_with_its_name(read, path, name):
    """Reads, or raises the one error that is allowed, with the file's name in it."""
    try:
        read(path)
    except UsageError as error:
        refusal = str(error)
    else:
        refusal = name
    assert name in refusal


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [field.name for field in dataclasses.fields(TrainConfig)]
QUIET = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@QUIET
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4) | JSON)
def test_whatever_is_in_a_configuration_it_is_read_or_refused(values):
    try:
        config = config_from_json(values)
    except ValueError:
        return
    assert config_from_json(json.loads(json.dumps(config.to_json()))) == config


@QUIET
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_in_config_json_it_is_read_or_refused_with_its_name(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    refused_with_its_name(read_config, tmp_path, "config.json")


def signed(tensors, metadata):
    """A file as ``write_checkpoint`` would write it."""
    return save(tensors, metadata | {"sha256": _digest(metadata, tensors)})


TENSORS = {
    "network.weight": torch.zeros(1, 2),
    "optimiser.0.step": torch.zeros(()),
    "optimiser.0.exp_avg": torch.zeros(1, 2),
    "optimiser.0.exp_avg_sq": torch.zeros(1, 2),
}
METADATA = {
    "format": str(FORMAT),
    "config": json.dumps(TrainConfig().to_json()),
    "env_steps": "5",
    "updates": "1",
    "time_s": "1.5",
    "score": "",
    "returns": "[1.0]",
}
WHOLE = signed(TENSORS, METADATA)


@QUIET
@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=5), st.binary(max_size=20))
def test_of_whatever_is_in_the_metrics_whole_lines_stay_and_a_torn_one_goes(tmp_path, lines, torn):
    path, whole = tmp_path / "metrics.jsonl", b"".join(line + b"\n" for line in lines)
    path.write_bytes(whole + torn.replace(b"\n", b""))
    _drop_torn_line(path)
    assert path.read_bytes() == whole


def read_what_was_written(path):
    """What is left of WHOLE says what it said: a space in its header may have become another."""
    found = read_checkpoint(path)
    assert found.progress == Progress(5, 1, 1.5, None, (1.0,))
    assert found.config == TrainConfig()
    read = {f"network.{name}": tensor for name, tensor in found.network.items()}
    read |= {f"optimiser.{name}": tensor for name, tensor in found.optimiser.items()}
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())


def test_a_checkpoint_that_is_whole_is_read(tmp_path):
    path = tmp_path / "checkpoint-000000000005.safetensors"
    path.write_bytes(WHOLE)
    network = torch.nn.Linear(2, 1, bias=False)
    optimiser = build_optimiser("adam", network.parameters(), 1e-3, 0.99, 1e-5)
    checkpoint = read_checkpoint(path)
    load_network(checkpoint, network, path)
    load_optimiser(checkpoint, optimiser, path)
    assert not network.weight.any()


@QUIET
@given(cut=st.integers(0, len(WHOLE)), at=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_checkpoint_with_any_byte_wrong_or_missing_is_refused_with_its_name(tmp_path, cut, at, byte):
    path = tmp_path / "checkpoint-000000000005.safetensors"
    for content in (WHOLE[:cut], WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]):
        path.write_bytes(content)
        refused_with_its_name(read_what_was_written, path, path.name)


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_that_a_disk_has_lost_in_the_weights_is_found(tmp_path, bit):
    path = tmp_path / "checkpoint-000000000005.safetensors"
    path.write_bytes(WHOLE[:-1] + bytes([WHOLE[-1] ^ 1 << bit]))
    with pytest.raises(UsageError, match=f"{path.name} is damaged: its checksum"):
        read_newest(tmp_path, lambda *_: None)


@QUIET
@given(
    st.dictionaries(
        st.sampled_from(["config", "env_steps", "updates", "time_s", "score", "returns"]),
        st.text(max_size=10) | JSON.map(json.dumps),
    )
)
def test_whatever_a_checkpoint_says_of_itself_it_is_read_or_refused_with_its_name(tmp_path, metadata):
    path = tmp_path / "checkpoint-000000000005.safetensors"
    path.write_bytes(signed({"network.weight": torch.zeros(2)}, METADATA | metadata))
    refused_with_its_name(read_checkpoint, path, path.name)
