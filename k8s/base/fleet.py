"""The example fleet: gateways that learn to tell five conditions of a pump apart, each knowing only three of them.

Replace it with your own model, data and training; the container image of the devices may as well carry them.
"""

import os
import zlib

import numpy as np

from headwater import LocalResult, Worker

CONDITIONS, SAMPLES = 5, 64


def record(conditions, count, seed):
    """Stands in for your own sensor: spectra of vibrations, and which condition each of them shows."""
    random = np.random.default_rng(seed)
    labels = random.choice(conditions, count)
    turns = (2 + 2 * labels[:, None]) * np.arange(SAMPLES) / SAMPLES + random.random((count, 1))
    windows = np.sin(2 * np.pi * turns) + 0.5 * random.standard_normal((count, SAMPLES))
    return np.abs(np.fft.rfft(windows))[:, 1:25].astype(np.float32) / 8, labels


def make_model():
    """A linear classifier as a dict of arrays; a PyTorch module serves as well."""
    return {"weight": np.zeros((24, CONDITIONS), np.float32), "bias": np.zeros(CONDITIONS, np.float32)}


def probabilities(model, spectra):
    """float[windows, conditions]."""
    scores = spectra @ model["weight"] + model["bias"]
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def make_worker():
    """The device in this pod: its name, its data, and how it trains on them."""
    name = os.environ["DEVICE"]
    number = zlib.crc32(name.encode())
    known = [(number + step) % CONDITIONS for step in (0, 1, 2)]
    spectra, labels = record(known, 300, seed=number)

    def train(model, context):
        for _ in range(context.epochs):
            error = probabilities(model, spectra)
            error[np.arange(len(labels)), labels] -= 1
            model["weight"] -= 10 * context.learning_rate * (spectra.T @ error / len(labels)).astype(np.float32)
            model["bias"] -= 10 * context.learning_rate * error.mean(0).astype(np.float32)
        return LocalResult(num_examples=len(labels), num_steps=context.epochs)

    return Worker(task=os.environ["TASK"], client_id=name, model=make_model(), train=train)


def make_evaluator():
    """A model, and how good it is on windows of all conditions that no gateway trained on."""
    spectra, labels = record(range(CONDITIONS), 500, seed=99)

    def evaluate(model):
        share = probabilities(model, spectra)
        right = share[np.arange(len(labels)), labels]
        return {"accuracy": float((share.argmax(1) == labels).mean()), "loss": float(-np.log(right + 1e-9).mean())}

    return make_model(), evaluate
