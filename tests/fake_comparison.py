"""A made-up record of a comparison, with the shape of a real one."""

import random

MFLOP = {"small": 5.93, "nature": 18.69, "large": 24.06, "large-s1": 99.41}
BASE = {"a3c": 900.0, "a2c": 1500.0, "ga3c": 1900.0}  # PPS with network small
COMPARISON = {"env": "Pong-v5", "until_score": None, "networks": ["small"], "device": "cpu", "seed": 1}
ROLES = {
    "a3c": {"worker": {"environment": 22, "inference": 18, "training": 41, "copying": 7, "waiting": 2}},
    "a2c": {"learner": {"environment": 30, "inference": 20, "training": 48, "copying": 3}},
    "ga3c": {
        "actor": {"environment": 40, "waiting": 60},
        "predictor": {"waiting": 15, "copying": 12, "inference": 70},
        "trainer": {"waiting": 20, "copying": 9, "training": 71},
    },
}


def window(number, pps, warm=True, **changes):
    figures = {
        "began_s": 4.0 * number, "seconds": 4.0, "time_s": 4.0 * number + 4.0, "warm": warm,
        "env_steps": round(pps * 4 * (number + 1)), "frames": round(pps * 16 * (number + 1)),
        "pps": pps, "tps": pps / 160, "training_samples_per_s": 0.98 * pps, "episode_return_mean": None,
    }  # fmt: skip
    return figures | changes


def queue_figures(mode, draw):
    """What a window has of queues, batches and lag; only GA3C has queues."""
    lag = {"a2c": 0, "a3c": 4, "ga3c": 2}[mode]
    lags = {str(max(0, lag + k)): draw.randint(1, 90) for k in range(-2, 3 if lag else -1)}
    figures = {"policy_lag_mean": lag + draw.uniform(-0.3, 0.3) * (lag > 0), "policy_lag_histogram": lags}
    figures["prediction_batch_mean"] = {"a3c": 1.0, "a2c": 32.0, "ga3c": draw.uniform(11, 18)}[mode]
    if mode == "ga3c":
        figures |= {
            "prediction_queue_depth": draw.uniform(0.5, 1.6),
            "training_queue_depth": draw.uniform(40, 130),
            "prediction_queue_histogram": {str(n): draw.randint(1, 400 // (n + 1)) for n in range(5)},
            "training_queue_histogram": {str(10 * n): draw.randint(1, 60) for n in range(25)},
            "prediction_batch_histogram": {str(8 * n): draw.randint(20, 900) for n in range(1, 5)},
        }
    return figures


def row(mode="ga3c", network="small", repeat=1, device="cpu", pps=1000.0, kind="mode", settings=None, **changes):
    """A cell that went well: two windows of warm-up, four that count, and a last one that does not."""
    draw = random.Random(f"{mode} {network} {repeat} {device}")
    windows = []
    for number in range(7):
        figures = queue_figures(mode, draw) | {"role_seconds": ROLES[mode]}
        windows.append(window(number, pps * (1 if number else 0.4), 2 <= number < 6, **figures))
    config = {
        "env": "Pong-v5", "mode": mode, "network": network, "t_max": 5, "learning_rate": 7e-4,
        "actors": {"a3c": 2, "a2c": 1, "ga3c": 4}[mode], "envs_per_actor": {"a3c": 1, "a2c": 32, "ga3c": 8}[mode],
    }  # fmt: skip
    made = {
        "cell": {
            "kind": kind, "mode": mode, "device": device, "network": network, "repeat": repeat, "minutes": 0.5,
            "settings": settings or {},
        },
        "commit": "0123456789abcdef", "dirty": False, "error": None, "train_arguments": [], "comparison": COMPARISON,
        "machine": {"cpu": "AMD EPYC", "cores": 2, "gpu": None, "system": "Linux"},
        "versions": {"python": "3.11.7", "ga3c": "0.1.0", "torch": "2.13.0"},
        "run": {"config": config, "protocol": "frame skip 4", "device": device,
                "precision": None if device.startswith("simulated:") else "bf16",
                "parameters": 677943, "mflop_per_state": MFLOP[network]},
        "windows": windows,
    }  # fmt: skip
    return made | changes


def rows(modes=("a3c", "a2c", "ga3c"), networks=tuple(MFLOP), repeats=3, device="cpu"):
    """A whole comparison: the larger the network, the more GA3C gains."""
    draw = random.Random(7)
    return [
        row(mode, network, repeat, device, BASE[mode] * (6 / MFLOP[network]) ** power * draw.uniform(0.93, 1.07))
        for repeat in range(1, repeats + 1)
        for network in networks
        for mode, power in (("a3c", 1.15), ("a2c", 0.85), ("ga3c", 0.8))
        if mode in modes
    ]


def learning(made, goal=18.0):
    """The same rows with a learning curve in each."""
    draw = random.Random(3)
    for one in made:
        speed = {"a3c": 0.6, "a2c": 0.9, "ga3c": 1.2}[one["cell"]["mode"]] * draw.uniform(0.85, 1.15)
        length = round(200 / speed)
        score = [-21 + 41 / (1 + 2.7 ** (-(10 * n / length - 5))) + draw.uniform(-0.7, 0.7) for n in range(length)]
        one["windows"] = [
            window(n, 1500.0 * speed, 1 < n < length - 1, episode_return_mean=score[n] if n > 2 else None)
            for n in range(length)
        ]
        one["comparison"] = COMPARISON | {"until_score": goal}
        one["reached"] = {"time_s": 4.0 * length, "env_steps": 1, "frames": 6000 * length}
    return made


def grid_rows(network="small", repeats=2):
    draw = random.Random(5)
    return [
        row(
            "ga3c", network, repeat, "cpu", 1900 * a / (a + 3) * (1 - 0.05 * p + 0.04 * t) * draw.uniform(0.95, 1.05),
            "grid", {"actors": a, "predictors": p, "trainers": t},
        )
        for repeat in range(1, repeats + 1)
        for a in (2, 4, 8, 16)
        for p in (1, 2)
        for t in (1, 2)
    ]  # fmt: skip
