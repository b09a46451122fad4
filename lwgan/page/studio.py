"""What the page shows of a run: images, and the commands that draw the same."""

import functools
import io
import pathlib
import shlex
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from lwgan.data.cache import load_dataset
from lwgan.data.decode import middle, read_image, to_rgb, unfitted
from lwgan.data.formats import open_image_file
from lwgan.data.source import Source
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from lwgan.latents.directions import VECTORS, Directions, read_directions
from lwgan.latents.search import Effort, find_latent
from lwgan.metrics.extraction import extract_dataset
from lwgan.metrics.networks.features import open_features
from lwgan.page.scenes import Picked, Scene
from lwgan.runs import manifest
from lwgan.runs.directory import Run
from lwgan.sampling.image_files import encode_image
from lwgan.sampling.labels import drawn_labels, labels_at
from lwgan.sampling.paths import angles, closed_loop
from lwgan.sampling.sampler import Draws, to_uint8
from lwgan.sampling.sheets import over_checkerboard
from lwgan.sampling.trained import Trained, load_step
from lwgan.sampling.video import write_video
from lwgan.settings.shapes import shape_of
from lwgan.training.evaluation import critic_at

# Checkpoints in memory at once.
_LOADED = 4
# Its weights come with pip.
_FEATURES = "efficientnet_lite0"
_NEAREST = 4
_FPS = 30
_EFFORT = Effort(candidates=256, starts=4, steps=200)


class Studio:
    """A run as the page shows it. No request changes what another one sees."""

    def __init__(self, run: Run):
        self.run = run
        # Of whoever computes: one at a time, so that memory is bounded.
        self.lock = threading.Lock()
        self.trained = functools.lru_cache(_LOADED)(self._load)

    def _load(self, step: int, weights: str) -> Trained:
        return load_step(self.run, manifest.resolve_step(self.run.workdir, step), weights)

    def describe(self) -> dict[str, Any]:
        """What there is to choose from, as it is now."""
        config = self.run.config
        height, width = shape_of(config.data.image_size)
        return {
            "workdir": str(self.run.workdir),
            "steps": manifest.finished_steps(self.run.workdir),
            "labels": list(config.data.label_names),
            "latent_dim": config.model.latent_dim,
            "height": height,
            "width": width,
        }

    def directions(self, step: int, weights: str) -> Directions:
        """Those that were found at this step, else at the newest that has some; or none."""
        dim = self.run.config.model.latent_dim
        folder = self.run.workdir / "directions"
        there = sorted(path.parent for path in folder.glob(f"*/{VECTORS}"))
        own = folder / f"{step:08d}-{weights}"
        if not there:
            return Directions(np.zeros((0, dim), np.float32), ())
        return read_directions(own if own in there else there[-1], dim)

    def latents(self, scene: Scene) -> np.ndarray:
        """Of each image or frame, before truncation: float32 (B, latent_dim).

        Raises:
          UserError: there is no such direction, or no way through the keyframes.
        """
        trained = self.trained(scene.step, scene.weights)
        vectors = self.directions(scene.step, scene.weights).vectors
        latents = np.stack([self._latent(trained, picked, vectors) for picked in scene.images])
        if not scene.frames:
            return latents
        if not angles(latents, np.roll(latents, -1, axis=0)).sum() > 0:
            raise UserError("images", len(latents), "are all the same", "choose others")
        path = closed_loop(latents, scene.frames)[0]
        return path if scene.frame is None else path[[scene.frame]]

    def _latent(self, trained: Trained, picked: Picked, vectors: np.ndarray) -> np.ndarray:
        latent = picked.latent
        if latent is None:
            latent = np.asarray(trained.latents(picked.seed, 1))[0]
        for place, far in picked.moves.items():
            if place >= len(vectors):
                raise UserError("moves", place, f"there are {len(vectors)} directions", "leave it")
            latent = latent + np.float32(far) * vectors[place]
        return latent

    def draw(self, scene: Scene) -> Iterator[np.ndarray]:
        """Its images or frames as ``lwgan.sample`` writes them, uint8 (H, W, C) each."""
        trained, latents = self.trained(scene.step, scene.weights), self.latents(scene)
        seeds = [picked.seed for picked in scene.images]
        seeds = np.array(seeds[:1] * len(latents) if scene.frames else seeds, np.uint32)
        own = Draws(seeds, np.zeros(len(seeds), np.int32))
        noise = None if scene.noise == "zero" else own
        if scene.noise == "fresh":
            noise = own._replace(seeds=np.full_like(seeds, scene.noise_seed))
        labels = self._labels(scene, own)
        data, aspect = self.run.config.data, self.run.info.aspect
        for image in trained.stream(latents, noise, truncation=scene.truncation, labels=labels):
            yield unfitted(to_uint8(image), data.fit, aspect)

    def _labels(self, scene: Scene, draws: Draws) -> np.ndarray | None:
        names = self.run.config.data.label_names
        if not names:
            return None
        if scene.label is None:
            return drawn_labels(*draws, names)
        return labels_at(np.full(len(draws.seeds), scene.label), names)

    def commands(self, scene: Scene) -> list[str]:
        """What draws each image of a scene, or a frame, perhaps with the latent.npy of it."""
        names, commands = self.run.config.data.label_names, []
        for picked in scene.images[: 1 if scene.frames else None]:
            words = ["python -m lwgan.sample", f"--workdir={shlex.quote(str(self.run.workdir))}"]
            words += [f"--step={scene.step}", f"--weights={scene.weights}"]
            label = scene.label
            if is_of_seed(picked, scene):
                words.append(f"--seeds={picked.seed}")
            else:
                fresh = scene.noise == "fresh"
                seed = scene.noise_seed if fresh else picked.seed
                words += ["--latents=latent.npy", f"--seed={seed}"]
                if names and label is None:
                    of_seed = Draws(np.array([picked.seed], np.uint32), np.zeros(1, np.int32))
                    label = int(drawn_labels(*of_seed, names).argmax())
            words += [f"--label={shlex.quote(names[label])}"] if label is not None else []
            words += [f"--truncation={scene.truncation}"] if scene.truncation != 1 else []
            words += ["--noise=zero"] if scene.noise == "zero" else []
            commands.append(" ".join(words))
        return commands

    def video(self, scene: Scene) -> bytes:
        """The frames of a scene as .mp4."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "interpolation.mp4")
            write_video(path, map(_even, self.draw(scene)), _FPS)
            return path.read_bytes()

    @functools.cached_property
    def _reals(self):
        run = self.run
        source = open_source(run.config.data, known=run.info.fingerprint)
        dataset, features = load_dataset(source, run.config.data), open_features(_FEATURES)
        every = np.arange(len(dataset.contents))
        known = extract_dataset(features, dataset, every, run.config.data, background="white")
        return dataset, features, known.features

    def nearest(self, image: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """The training images that look most like one uint8 (H, W, C), with their names.

        Raises:
          UserError: the dataset is not there.
        """
        dataset, features, known = self._reals
        own = features(to_rgb(image[None], "white"))
        near = np.argsort(np.square(known - own).sum(1))[:_NEAREST]
        return [(dataset.names[index], dataset.centre(index)) for index in near]

    def project(self, file: bytes, step: int, weights: str) -> tuple[np.ndarray, float]:
        """The latent whose image comes closest to one in a file, without noise; and how close.

        Raises:
          UserError: it does not decode.
        """
        data = self.run.config.data
        read = lambda _: open_image_file(io.BytesIO(file), "image")  # noqa: E731
        source = Source(["image"], np.zeros((1, 16), np.uint8), "", read, {}, lambda: source)
        try:
            array = read_image(source, 0, data)[1]
        except ValueError as error:
            hint = "choose an image"
            raise UserError("image", "", f"does not decode ({error})", hint) from None
        target = middle(array, shape_of(data.image_size)).astype(np.float32) / 255
        trained = self.trained(step, weights)
        found = find_latent(trained, critic_at(self.run, step), target, _EFFORT, with_noise=False)
        return found.latent, found.psnr


def is_of_seed(picked: Picked, scene: Scene) -> bool:
    """Whether the image is what its seed alone draws."""
    plain = picked.latent is None and not any(picked.moves.values())
    return plain and scene.noise != "fresh" and not scene.frames


def as_png(image: np.ndarray) -> bytes:
    """uint8 (H, W, C) as ``lwgan.sample`` writes it."""
    return encode_image(image, ".png")


def _even(frame: np.ndarray) -> np.ndarray:
    """A frame of an even height and width, as videos have."""
    height, width = (side % 2 for side in frame.shape[:2])
    frame = np.pad(frame, ((0, height), (0, width), (0, 0)), "edge")
    return over_checkerboard(frame[None])[0]
