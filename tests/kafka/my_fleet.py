"""What a user writes: a model, training on a device, and its evaluation."""

MY_FLEET = '''
"""Softmax regression on synthetic data: ten classes, 300 features, 3,010 parameters; each device knows some classes."""
import os

import numpy as np
from headwater import LocalResult, Worker

FEATURES, CLASSES = 300, 10
CENTRES = np.random.default_rng(1).normal(size=(CLASSES, FEATURES)).astype(np.float32)

def make_model():
    return {"weight": np.zeros((FEATURES, CLASSES), np.float32), "bias": np.zeros(CLASSES, np.float32)}

def record(classes, count, seed):
    random = np.random.default_rng(seed)
    labels = random.choice(classes, count)
    return (CENTRES[labels] * 0.2 + random.normal(size=(count, FEATURES))).astype(np.float32), labels

def probabilities(model, inputs):
    scores = inputs @ model["weight"] + model["bias"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)

def make_train(number):
    inputs, labels = record([(number + k) % CLASSES for k in range(4)], 200, seed=number)
    targets = np.eye(CLASSES, dtype=np.float32)[labels]

    def train(model, context):
        steps, loss = 0, 0.0
        for batch in np.split(np.random.default_rng(context.seed).permutation(len(labels)), 10):
            found = probabilities(model, inputs[batch])
            slope = (found - targets[batch]) / len(batch)
            model["weight"] -= context.learning_rate * inputs[batch].T @ slope
            model["bias"] -= context.learning_rate * slope.sum(axis=0)
            loss -= np.log(found[np.arange(len(batch)), labels[batch]] + 1e-9).mean()
            steps += 1
        context.stop.wait(float(os.environ.get("PACE_S", "0.05")))
        return LocalResult(num_examples=len(labels), num_steps=steps, metrics={"loss": loss / steps})

    return train

def make_worker():
    return [
        Worker(task="t", client_id=name, model=make_model(), train=make_train(int(name.partition("-")[2])))
        for name in os.environ["DEVICES"].split(",")
    ]

def make_evaluator():
    inputs, labels = record(range(CLASSES), 400, seed=99)
    right = range(len(labels)), labels

    def score(model):
        found = probabilities(model, inputs)
        accuracy = (found.argmax(axis=1) == labels).mean()
        return {"accuracy": accuracy, "loss": -np.log(found[right] + 1e-9).mean()}

    return make_model(), score
'''
"""The user's own module; `accuracy` of an untrained model is 0.1."""
