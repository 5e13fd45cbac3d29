#!/usr/bin/env python3
"""Trains the network of this example and writes weights.inc. Needs NumPy; seeded, so reproducible.

Every third image (rows 2, 5, 8, ... of digits.csv.gz) is held out: it is neither trained on nor looked at
until the accuracy is printed at the end.
"""

import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
HIDDEN = 64
EPOCHS = 60
BATCH = 32
SEED = 1


def main() -> None:
    rows = np.loadtxt(HERE / "digits.csv.gz", delimiter=",", dtype=np.int64)
    pixels, labels = rows[:, :64] / 16.0, rows[:, 64]
    held_out = np.arange(len(rows)) % 3 == 2
    weights = train(pixels[~held_out], labels[~held_out])
    correct = np.argmax(forward(weights, pixels[held_out])[1], axis=1) == labels[held_out]
    print(f"trained on {np.sum(~held_out)}, held out {np.sum(held_out)}, accuracy {np.mean(correct):.4f}")
    (HERE / "weights.inc").write_text("".join(lines(weights)))


def forward(weights, pixels):
    hidden = np.maximum(pixels @ weights[0] + weights[1], 0.0)
    return hidden, hidden @ weights[2] + weights[3]


def train(pixels, labels):
    """Adam on the cross-entropy, with images shifted by up to one pixel and a little weight decay."""
    random = np.random.default_rng(SEED)
    weights = [
        random.normal(0, np.sqrt(2 / 64), (64, HIDDEN)),
        np.zeros(HIDDEN),
        random.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, 10)),
        np.zeros(10),
    ]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    step = 0
    for _ in range(EPOCHS):
        order = random.permutation(len(pixels))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = shifted(pixels[chosen], random)
            hidden, scores = forward(weights, batch)
            error = np.exp(scores - scores.max(axis=1, keepdims=True))
            error /= error.sum(axis=1, keepdims=True)
            error[np.arange(len(chosen)), labels[chosen]] -= 1.0
            error /= len(chosen)
            back = (error @ weights[2].T) * (hidden > 0)
            gradients = [batch.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]
            step += 1
            for i, gradient in enumerate(gradients):
                gradient = gradient + 1e-4 * weights[i]
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient**2
                rate = 3e-3 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                weights[i] = weights[i] - rate * first[i] / (np.sqrt(second[i]) + 1e-8)
    return weights


def shifted(pixels, random):
    images = pixels.reshape(-1, 8, 8)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    moved = [padded[i, r : r + 8, c : c + 8] if random.random() < 0.5 else images[i]
             for i, (r, c) in enumerate(random.integers(0, 3, (len(images), 2)))]
    return np.stack(moved).reshape(-1, 64)


def lines(weights):
    yield "// Written by train.py: hidden weights [64][64], hidden biases [64], output weights [64][10], biases [10].\n"
    values = np.concatenate([w.ravel() for w in weights])
    for start in range(0, len(values), 10):
        yield ", ".join(f"{np.float32(v) + 0.0:.6e}F" for v in values[start : start + 10]) + ",\n"


if __name__ == "__main__":
    main()
