"""Makes the embedded Fashion-MNIST subset from Debian's package ``dataset-fashion-mnist``.

    python -m ovit_deploy.assets.build

10,000 training and 2,000 test images of Fashion-MNIST (Zalando SE 2017, MIT licence), the same number of each class,
chosen with seed 0 and kept in the original order.
"""

import numpy as np

from ovit_deploy.data.sources import DEBIAN_FASHION_MNIST, EMBEDDED, read_idx

SEED = 0
PER_CLASS = {"train": 1000, "t10k": 200}


def choose(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices [10 * per_class] of a balanced random choice, ascending."""
    generator = np.random.default_rng(SEED)
    chosen = [generator.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in range(10)]
    return np.sort(np.concatenate(chosen))


def main() -> None:
    """Write the archive into the package."""
    arrays = {}
    for source, name in (("train", "train"), ("t10k", "test")):
        images = read_idx(DEBIAN_FASHION_MNIST / f"{source}-images-idx3-ubyte.gz")
        labels = read_idx(DEBIAN_FASHION_MNIST / f"{source}-labels-idx1-ubyte.gz")
        chosen = choose(labels, PER_CLASS[source])
        arrays |= {f"{name}_images": images[chosen], f"{name}_labels": labels[chosen]}
    np.savez_compressed(EMBEDDED, **arrays)
    print(f"{EMBEDDED.name}: {EMBEDDED.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
