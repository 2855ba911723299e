import contextlib
import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios

import av
import numpy as np
import pygame
import pytest
from PIL import Image
from rich.console import Console

import ga3c.film
import ga3c.play.window
from ga3c.checkpoint import Progress, snapshot, write_checkpoint
from ga3c.cli import run
from ga3c.config import TrainConfig
from ga3c.envs import EnvConfig, EnvSpec, action_names, env_spec, make_env, make_filmed
from ga3c.errors import UsageError
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
from ga3c.play import PlayOptions, play
from ga3c.play.game import Moment
from ga3c.play.picture import _CHOSEN, Painter
from ga3c.play.terminal import half_blocks, terminal
from ga3c.play.window import NoWindowError, window
from ga3c.recorder import Recorder
from tests.running import ROOT, SMALL, STOP_S, finish, roles, wait_for
from tests.running import ga3c as command

BROWN = (144, 72, 17)  # Pong's background
PONG = EnvConfig("Pong-v5", reward_clip=False)


def an_agent(folder, env="Pong-v5", network="small", **options):
    """A checkpoint of 200 steps, untrained."""
    config = TrainConfig(env=env, network=network, device="cpu", **options)
    spec = env_spec(config.env_config())
    made = build_network(network, spec.observation_shape, spec.num_actions, "uniform")
    tensors = snapshot(made, build_optimiser("adam", made.parameters(), 1e-2, 0.99, 1e-5))
    return write_checkpoint(folder, config, Progress(200, 3, 1.5), tensors, keep=3)


def frames(path):
    """Of an MP4: what it says of itself, and its pictures."""
    with av.open(path) as film:
        stream = film.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        context = stream.codec_context
        assert (context.colorspace, context.color_range) == (6, 1), "players guess how colours are coded"
        return (stream.codec.name, stream.pix_fmt, float(stream.average_rate)), pictures


def test_a_film_of_pong_has_its_colours_and_its_speed(tmp_path, capsys):
    an_agent(tmp_path)
    assert run(["play", str(tmp_path), "--seconds", "2", "--device", "cpu"]) == 0
    kind, pictures = frames(tmp_path / "play-200.mp4")
    assert kind == ("h264", "yuv420p", 15.0)
    assert len(pictures) == 30
    assert pictures[0].shape == (420, 320, 3)
    np.testing.assert_allclose(pictures[20][200, 10], BROWN, atol=6)
    said = capsys.readouterr().out
    for words in (
        "trained for 200 steps; sampled",
        "in a game that was not played to its end",
        "play-200.mp4: 30 frames",
    ):
        assert words in said
    assert run(["play", str(tmp_path), "--seconds", "0.2", "--device", "cpu", "--scale", "1"]) == 0
    assert frames(tmp_path / "play-200-2.mp4")[1][0].shape == (210, 160, 3)
    assert not list(tmp_path.glob("*.partial"))


def test_a_gif_has_exact_colours_and_lasts_as_long_as_the_play_that_it_explains(tmp_path):
    out = tmp_path / "film.gif"
    assert run(["play", str(an_agent(tmp_path)), "--seconds", "1", "--fps", "30", "--explain", "--out", str(out)]) == 0
    with Image.open(out) as film:
        assert film.n_frames == 30
        assert film.size == (320 + 244, 420)
        lasts, panels = 0, set()
        for n in range(30):
            film.seek(n)
            lasts += film.info["duration"]
            picture = film.convert("RGB")
            panels.add(picture.crop((320, 0, 564, 420)).tobytes())
    assert lasts == 1000
    assert picture.getpixel((10, 200)) == BROWN
    assert len(panels) == 30  # the line of the values moves


def test_a_film_shows_every_state_of_whole_games_and_their_scores(tmp_path, capsys):
    path = an_agent(tmp_path, "tests.tiny_envs:Drawn-v0", "mlp")
    assert run(["play", str(path), "--episodes", "2", "--scale", "1", "--seed", "3"]) == 0
    kind, pictures = frames(tmp_path / "play-200.mp4")
    assert kind[2] == 20.0  # as the environment says
    assert {picture.shape for picture in pictures} == {(34, 52, 3)}
    white = [int((picture[:, :48].min(axis=(1, 2)) > 128).sum()) for picture in pictures]
    assert white == [0, 1, 2, 3, 0, 1, 2, 3]
    assert "scores: " in capsys.readouterr().out


def test_a_game_that_is_filmed_is_the_one_that_is_played_unfilmed():
    env, filmed = make_env(PONG, [7]), make_filmed(PONG, 7)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(env.reset(), filmed.reset())
    games, score, before = 0, 0.0, filmed.frame()
    while games < 1:
        actions = rng.integers(0, 6, 1)
        one, other = env.step(actions), filmed.step(actions)
        frame = filmed.frame()
        for field, (a, b) in zip(one._fields, zip(one, other, strict=True), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=field)
        games += int(one.game_over[0])
        score += float(one.game_rewards[0])
    env.close()
    filmed.close()
    assert score <= -15  # a whole game of random play
    assert frame.shape == (210, 160, 3)
    assert tuple(frame[100, 5]) == BROWN
    assert not np.array_equal(frame, before)


def test_actions_have_the_joysticks_names_and_elsewhere_numbers():
    assert action_names(env_spec(PONG)) == ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    assert len(action_names(env_spec(EnvConfig("Seaquest-v5")))) == 18
    assert action_names(env_spec(EnvConfig("CartPole-v1"))) == ["0", "1"]
    assert action_names(EnvSpec("Own-v5", "envpool", (4,), "float32", 2, 4, "no_such_game", "none")) == ["0", "1"]


@pytest.mark.parametrize("count", [2, 6, 18])
def test_the_chosen_actions_bar_is_as_long_as_its_probability(count):
    def chosen(probability):
        others = np.full(count, (1 - probability) / (count - 1), np.float32)
        others[0] = probability
        moment = Moment(np.zeros((210, 160, 3), np.uint8), others, 0.5, 0, 3.0)
        picture = Painter([str(a) for a in range(count)], scale=2, explain=True).paint(moment)
        accent = tuple(int(_CHOSEN[i : i + 2], 16) for i in (1, 3, 5))
        return int((np.asarray(picture) == accent).all(axis=2).sum())

    least = chosen(0.0)
    assert least > 0  # the name, and the line's end
    assert chosen(0.8) - least == pytest.approx(2 * (chosen(0.4) - least), rel=0.1)


def test_the_terminal_shows_two_pixels_a_character_in_the_games_colours():
    frame = np.full((210, 160, 3), BROWN, np.uint8)
    text = half_blocks(Image.fromarray(frame[:4, :6]))
    assert text.plain == "▀▀▀▀▀▀\n▀▀▀▀▀▀\n"
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, color_system="truecolor", width=40, height=20, legacy_windows=False
    )
    with terminal(["UP", "DOWN"], console) as show:
        assert show(Moment(frame, np.float32([0.25, 0.75]), 1.5, 1, 2.0), Image.fromarray(frame))
    assert "38;2;144;72;17;48;2;144;72;17m▀" in out.getvalue()
    assert "score 2   V(s) +1.50   DOWN 75%" in out.getvalue()


def test_a_game_is_shown_in_a_terminal_until_ctrl_c(tmp_path):
    path = an_agent(tmp_path)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    words = [sys.executable, "-m", "ga3c", "play", str(path), "--live", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while shown.count(b"score") < 20:
            assert select.select([ours], [], [], STOP_S)[0], shown[-500:]
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # its end
            while text := os.read(ours, 65536):
                shown += text
        assert process.wait(STOP_S) == 130
    os.close(ours)
    assert b"38;2;144;72;17m" in shown or b"48;2;144;72;17m" in shown, "Pong's brown"
    assert b"Traceback" not in shown
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def display(monkeypatch):
    """A display whose windows nobody sees."""
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.mark.usefixtures("display")
def test_a_window_shows_the_picture_until_it_is_closed():
    picture = np.random.default_rng(0).integers(0, 256, (210, 160, 3), np.uint8)
    moment = Moment(picture, np.float32([0.25, 0.75]), 1.5, 1, 2.0)
    with window("Pong-v5", (160, 210)) as show:
        assert show(moment, Image.fromarray(picture))
        shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        assert (shown == picture).all()
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert not show(moment, Image.fromarray(picture))
    assert not pygame.display.get_init()


@pytest.mark.usefixtures("display")
def test_a_game_whose_window_is_closed_ends_and_writes_no_film(tmp_path, capsys, monkeypatch):
    path = an_agent(tmp_path)
    shown = []

    def closed_at_the_third(*_):
        shown.append(pygame.display.get_window_size())
        return [pygame.event.Event(pygame.QUIT)] if len(shown) == 3 else []

    monkeypatch.setattr(pygame.event, "get", closed_at_the_third)
    assert play(PlayOptions(path, live=True, explain=True, episodes=1000, device="cpu")) == 0
    assert shown == [(564, 420)] * 3
    assert "in a game that was not played to its end" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("terminal", "ends"), [(True, 0), (False, 2)])
def test_a_display_that_does_not_answer_means_the_terminal_or_a_sentence(tmp_path, capsys, monkeypatch, terminal, ends):
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-nonesuch")
    monkeypatch.setenv("SDL_VIDEODRIVER", "wayland")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    an_agent(tmp_path)
    assert run(["play", str(tmp_path), "--live", "--seconds", "0.2", "--device", "cpu"]) == ends
    said = capsys.readouterr()
    assert "no window can be opened: " in said.out + said.err
    assert ("V(s)" in said.out) == terminal


@pytest.mark.usefixtures("display")
def test_a_window_without_pygame_is_answered_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(ga3c.play.window, "find_spec", lambda name: None)
    with pytest.raises(NoWindowError, match=r"pip install 'ga3c\[video\]'"), window("Pong-v5", (160, 210)):
        pass


def test_ctrl_c_keeps_what_was_filmed(tmp_path):
    an_agent(tmp_path)
    process = command("play", ".", "--out", "film.mp4", "--episodes", 1000, cwd=tmp_path, wait=False)
    assert wait_for((tmp_path / "film.mp4.partial").exists)
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=STOP_S).returncode == 130, process.err
    assert process.err == ""
    assert "not played to its end" in process.out
    assert len(frames(tmp_path / "film.mp4")[1]) > 0
    assert not (tmp_path / "film.mp4.partial").exists()


def test_what_cannot_be_drawn_is_refused_before_a_file_is_begun(tmp_path, capsys):
    path = an_agent(tmp_path, "tests.tiny_envs:TerminalReward-v0", "mlp")
    assert run(["play", str(path)]) == 2
    assert "tests.tiny_envs:TerminalReward-v0 cannot be filmed: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_renderer_is_named_with_what_installs_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)  # as if it were not there
    path = an_agent(tmp_path, "CartPole-v1", "mlp", backend="gymnasium")
    assert run(["play", str(path)]) == 2
    assert "pip install" in capsys.readouterr().err


def test_a_missing_extra_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ga3c.film, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--record-every needs av and pillow; pip install 'ga3c\[video\]'"):
        ga3c.film.check_extra("--record-every")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("no_process_and_no_shared_memory_is_left")
def test_a_run_films_itself_and_goes_on_doing_so_when_it_is_resumed(tmp_path):
    clips = tmp_path / "run" / "clips"
    often = ["--record-every", "0.01", "--checkpoint-every", "1"]
    process = command("train", "CartPole-v1", "--out", "run", *often, *SMALL, cwd=tmp_path, wait=False)
    assert wait_for(lambda: list(clips.glob("clip-*.mp4")), timeout=100)
    process.send_signal(signal.SIGTERM)
    assert finish(process, timeout=STOP_S).returncode == 143, process.err
    assert "a film was not made" not in process.out
    films = set(clips.iterdir())
    assert all(film.suffix == ".mp4" for film in films)
    assert len(frames(min(films))[1]) == 15 * 50  # CartPole's speed

    process = command("train", "--resume", "run", cwd=tmp_path, wait=False)
    assert wait_for(lambda: "ga3c: recorder" in roles(tmp_path).values())
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    assert wait_for(lambda: not roles(tmp_path), timeout=10)
    assert not list(clips.glob("*.partial"))


def test_a_film_that_cannot_be_made_is_said_once_and_one_that_is_being_made_ends_with_the_run(tmp_path):
    (tmp_path / "checkpoint-000000000001.safetensors").write_text("not a checkpoint")
    said = []
    recorder = Recorder(tmp_path, 0.0001, said.append, os.environ)

    def failed():
        recorder.tick()
        return said

    assert wait_for(failed)
    assert "cannot be read as a checkpoint" in said[0]
    recorder.tick()  # begins the next
    assert recorder._process is not None
    recorder._fail("again")
    recorder.close()
    assert len(said) == 1
    assert recorder._process is None
