import pytest

from ga3c.compare import charts
from ga3c.compare.chart_style import save, style_of, styled
from ga3c.compare.charts_over_time import queues, scores
from ga3c.compare.command import draw
from ga3c.compare.figures import labels, published
from ga3c.windows import bin_edges
from tests.fake_comparison import grid_rows, learning, row, rows

TWO = ("small", "large")


@pytest.fixture(autouse=True)
def _style():
    with styled():
        yield


def words(figure):
    """Everything that is written on it, but for the ticks."""
    figure.canvas.draw()
    found = [text.get_text() for text in [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]]
    for axis in figure.axes:
        found += [axis.get_xlabel(), axis.get_ylabel(), axis.get_title(), *(t.get_text() for t in axis.texts)]
    return "\n".join([*found, figure.get_suptitle(), figure.get_supxlabel()])


def test_chart_1_has_a_bar_a_mode_and_network_and_the_speed_up_over_each_pair():
    figure = charts.throughput(rows(networks=TWO))
    text = words(figure)
    for part in (
        "predictions / s (PPS)",
        "training samples / s",
        "MFLOP / state",
        "x 2.",
        "AMD EPYC",
        "0123456789",
    ):
        assert part in text
    assert len(figure.axes) == 4
    assert all(len(axis.patches) == 3 for axis in figure.axes)


def test_chart_1_shows_a_mode_that_has_no_partner():
    assert charts.throughput(rows(("ga3c",), ("small",), 1)) is not None


def test_chart_2_has_the_published_pairs_with_hardware_and_source():
    text = words(charts.speed_up(rows(networks=TWO), published()))
    for part in ("MFLOP / state", "speed-up in PPS (times)", "Titan X (Maxwell)", "arXiv 1611.06256", "bootstrap"):
        assert part in text
    assert "published" not in words(charts.speed_up(rows(networks=TWO), []))


def test_chart_2_needs_both_modes():
    assert charts.speed_up(rows(("ga3c", "a2c")), published()) is None


def test_chart_3_has_a_line_for_each_count_of_predictors_and_trainers():
    figure = charts.grid(grid_rows())
    text = words(figure)
    for part in ("actors N_A (processes)", "updates / s (TPS)", "predictions / s (PPS)", "N_P 2, N_T 1"):
        assert part in text
    assert charts.grid(rows()) is None


def test_chart_4_shows_time_and_distribution_of_queues_batches_and_lag():
    text = words(queues(rows(), "small"))
    for part in ("time (s)", "share (%)", "queue (requests)", "queue (samples)", "batch (states)", "lag (updates)"):
        assert part in text


def test_chart_4_says_what_was_not_recorded():
    assert "not recorded" in words(queues(rows(("a2c",)), "small"))
    bare = row(windows=[{**window, "policy_lag_mean": None} for window in row()["windows"]])
    assert queues([bare], "small") is None


def test_chart_5_has_the_mean_of_seeds_over_minutes_and_frames():
    text = words(scores(learning(rows(networks=("small",)))))
    for part in ("training time (minutes)", "frames (millions)", "return", "mean of 3 seeds, 95 % interval"):
        assert part in text
    assert scores(rows()) is None


def test_chart_5_leaves_out_devices_on_which_nothing_is_learnt():
    made = [
        one | {"run": one["run"] | {"device": "simulated:null"}} for one in learning(rows(("ga3c",), ("small",), 1))
    ]
    assert scores(made) is None


def test_chart_6_has_a_bar_a_role_that_adds_up_to_all_of_its_time():
    figure = charts.time_shares(rows(networks=("small",)))
    assert "share of the role's time (%)" in words(figure)
    (axis,) = figure.axes
    roles = [tick.get_text() for tick in axis.get_yticklabels()]
    assert roles == [
        "A3C (cpu): worker",
        "A2C (cpu): learner",
        *(f"GA3C (cpu): {r}" for r in ("actor", "predictor", "trainer")),
    ]
    assert sum(bar.get_width() for bar in axis.patches) == pytest.approx(500)


def test_every_chart_of_a_simulated_device_says_so():
    made = rows(networks=("small",), repeats=2, device="simulated:titan-x")
    drawn = [charts.throughput(made), charts.speed_up(made, []), queues(made, "small"), charts.time_shares(made)]
    for figure in drawn:
        assert "(simulated device)" in figure.get_suptitle()


def test_series_are_told_apart_without_colour():
    made = [one | {"record": name} for name in ("a", "b") for one in rows(networks=("small",), repeats=1)]
    styles = [style_of(name, made) for name in labels(made)]
    assert len({style.hatch for style in styles}) == len({style.marker for style in styles}) == 6
    assert len({style.line for style in styles}) == 6


def test_bins_hold_the_same_number_of_multiples():
    assert list(bin_edges([0, 1, 2])) == [-0.5, 0.5, 1.5, 2.5]
    assert list(bin_edges([80, 160, 320])) == [40, 120, 200, 280, 360]
    assert len(bin_edges(range(1000))) <= 34
    assert list(bin_edges([7])) == [6.5, 7.5]


def test_the_record_is_drawn_as_png_and_svg_with_a_report_that_shows_them(tmp_path, capsys):
    made = [*rows(networks=("small",), repeats=1), row(network="small", repeat=2, error="boom", windows=[])]
    draw(made, tmp_path, with_published=False)
    names = {path.name for path in tmp_path.iterdir()}
    for name in ("1_throughput", "2_speed_up", "4_queues_small", "6_time"):
        assert {f"{name}.png", f"{name}.svg"} <= names
        assert f"]({name}.png)" in (tmp_path / "report.md").read_text()
    assert "small: GA3C (cpu) / A3C (cpu)" in capsys.readouterr().out


def test_the_same_record_gives_the_same_file(tmp_path):
    made = rows(networks=("small",), repeats=1)
    first, second = (save(charts.speed_up(made, []), tmp_path, name)[1].read_bytes() for name in ("a", "b"))
    assert first == second
