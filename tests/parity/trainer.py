"""lightweight-gan's own Trainer on a CPU, with every random number given."""

import contextlib
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import reference
from reference import package, torch

# As XLA does; faster.
torch.set_flush_denormal(True)


class Given:
    """Stands for a random function: returns the numbers put in, in order, and checks
    their shapes.
    """

    def __init__(self) -> None:
        self.numbers: deque = deque()

    def put(self, *numbers: Any) -> None:
        self.numbers.extend(numbers)

    def scalar(self, *_: Any) -> Any:
        return self.numbers.popleft()

    def tensor(self, *size: int, **_: Any) -> Any:
        drawn = np.array(self.numbers.popleft())
        assert drawn.shape == tuple(size)
        return torch.from_numpy(drawn)

    def integers(self, low: int, high: int, size: list[int], **_: Any) -> Any:
        drawn = np.array(self.numbers.popleft(), np.int64)
        assert (low <= drawn).all() and (drawn < high).all() and [drawn.size, 1, 1] == size
        return torch.from_numpy(drawn.reshape(size))


class Draws:
    """What the package draws, by the function that it draws with."""

    def __init__(self) -> None:
        # Latents and noise: torch.randn.
        self.normal = Given()
        # Whether to augment, whether to flip, and the quadrant: random.random.
        self.coin = Given()
        # Of the colours: torch.rand.
        self.factor = Given()
        # Of cutout and translation: torch.randint.
        self.place = Given()
        # Of the offsets: random.randint.
        self.offset = Given()

    def all_used(self) -> bool:
        return not any(given.numbers for given in vars(self).values())


def fake_torch(**functions: Any) -> types.ModuleType:
    """torch with some functions replaced."""

    class Torch(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    fake = Torch("torch")
    vars(fake).update(functions)
    return fake


@contextlib.contextmanager
def given(draws: Draws) -> Iterator[None]:
    """Within this, the package draws what ``draws`` holds and finds a CPU where it asks
    for a GPU.
    """
    networks = fake_torch(randn=draws.normal.tensor, device=lambda *args: torch.device("cpu"))
    images = fake_torch(rand=draws.factor.tensor, randint=draws.place.integers)
    augmentations = "lightweight_gan.diff_augment"
    with (
        mock.patch.object(package, "torch", networks),
        mock.patch.object(package, "random", draws.coin.scalar),
        mock.patch(f"{augmentations}.torch", images),
        mock.patch(f"{augmentations}.random", types.SimpleNamespace(randint=draws.offset.scalar)),
        mock.patch.object(torch.Tensor, "cuda", lambda tensor, *args: tensor),
    ):
        yield


def put_augmentation(draws: Draws, name: str, drawn: Any, side: int) -> None:
    """Lets the package draw what lwgan drew for one augmentation of images of ``side`` pixels.

    ``drawn`` is what ``AUGMENTATIONS[name].draw`` returns, for a batch.
    """
    if name.startswith("color"):
        factors = (drawn.brightness + 0.5, drawn.saturation / 2, drawn.contrast - 0.5)
        draws.factor.put(*(np.asarray(f).reshape(-1, 1, 1, 1) for f in factors))
    elif name in ("cutout", "translation"):
        draws.place.put(*np.asarray(drawn).T)
    else:
        reach_down, reach_right = side * (name != "offset_h"), side * (name != "offset_v")
        for down, right in np.asarray(drawn):
            draws.offset.put((right + reach_right) // 2, (down + reach_down) // 2)


class Trainer(package.Trainer):
    """Their Trainer, which also keeps every term of the losses, each micro-batch's, in order."""

    def __init__(self, base_dir: Any, **options: Any) -> None:
        self.terms: dict[str, list[float]] = {}
        super().__init__(base_dir=base_dir, use_aim=False, **options)
        # Which init_GAN overwrites.
        blur = mock.patch.object(package, "Blur", package.Blur)
        cuda = mock.patch.object(torch.nn.Module, "cuda", lambda module, *args: module)
        with blur, cuda:
            self.init_GAN()
        self.GAN.D_aug.register_forward_hook(self._keep_reconstruction)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "last_gp_loss" and value is not None:
            self.keep("d/penalty", value)
        super().__setattr__(name, value)

    def keep(self, name: str, value: float) -> None:
        self.terms.setdefault(name, []).append(value)

    def _keep_reconstruction(self, module: Any, args: Any, output: Any) -> None:
        if output[-1] is not None and torch.is_tensor(output[-1]):
            self.keep("d/reconstruction", output[-1].item())

    def step(self, draws: Draws, images: Iterable[np.ndarray]) -> dict[str, float]:
        """One step with these draws on these batches (B, H, W, C), and the means of its terms."""
        self.terms = {}
        self.loader = map(reference.nchw, images)
        with given(draws), self._kept_losses():
            self.train()
        assert draws.all_used() and next(self.loader, None) is None
        return {name: float(np.mean(values)) for name, values in self.terms.items()}

    @contextlib.contextmanager
    def _kept_losses(self) -> Iterator[None]:
        """Within this, the losses keep their terms; the first half of the calls are D's."""
        calls = []

        def kept(loss: Any) -> Any:
            def call(*logits: Any) -> Any:
                value = loss(*logits)
                calls.append(value.item())
                return value

            return call

        losses = ("hinge_loss", "gen_hinge_loss", "dual_contrastive_loss")
        with contextlib.ExitStack() as stack:
            for name in losses:
                loss = getattr(package, name)
                stack.enter_context(mock.patch.object(package, name, kept(loss)))
            yield
        half = len(calls) // 2
        for network, values in (("d", calls[:half]), ("g", calls[half:])):
            for main, side in zip(values[::2], values[1::2], strict=True):
                self.keep(f"{network}/adversarial", main)
                self.keep(f"{network}/side", side)

    def evaluate(self, *args: Any, **options: Any) -> None:
        """Nothing: torchvision is not needed for this."""
