"""What the page shows of a run: images, and the commands that draw the same."""

import functools
import io
import pathlib
import shlex
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lwgan.data.decode import middle, read_image
from lwgan.data.formats import open_image_file
from lwgan.data.source import Source
from lwgan.errors import UserError
from lwgan.latents.directions import VECTORS, Directions, read_directions
from lwgan.latents.search import Effort, find_latent
from lwgan.page.reals import open_reals
from lwgan.page.scenes import Picked, Scene
from lwgan.runs import manifest
from lwgan.runs.directory import Run, read_run
from lwgan.sampling.labels import drawn_labels, labels_at
from lwgan.sampling.paths import closed_loop
from lwgan.sampling.sampler import Draws, to_uint8
from lwgan.sampling.trained import Trained, load_step
from lwgan.sampling.video import write_video
from lwgan.settings.shapes import shape_of
from lwgan.training.evaluation import critic_at

# Checkpoints in memory at once.
_LOADED = 4
_FPS = 30
_EFFORT = Effort(candidates=256, starts=3, steps=250)


class Projected(NamedTuple):
    """What was found for an image of the user's."""

    # float32 (latent_dim,).
    latent: np.ndarray
    # Its place; None without labels.
    label: int | None
    # In decibels.
    psnr: float


class Studio:
    """A run as the page shows it. No request changes what another one sees.

    A run may go on meanwhile, or be started afresh: what is kept in memory is that of the files as
    they are.
    """

    def __init__(self, workdir: pathlib.Path):
        self.workdir = workdir
        # Of whoever computes: one at a time, so that memory is bounded.
        self.lock = threading.Lock()
        self._run = functools.lru_cache(1)(lambda *stamps: read_run(workdir))
        self._trained = functools.lru_cache(_LOADED)(self._load)
        self._reals = functools.lru_cache(1)(lambda *stamps: open_reals(self.run))

    @property
    def run(self) -> Run:
        """Its settings, and what is known of it."""
        return self._run(*self._stamps())

    def _stamps(self) -> list[int]:
        return [_stamp(self.workdir / name) for name in ("run.json", "config.json")]

    def trained(self, step: int, weights: str) -> Trained:
        """The generator of a checkpoint.

        Raises:
          UserError: there is no such checkpoint.
        """
        folder = self.workdir / "checkpoints" / str(step)
        return self._trained(step, weights, _stamp(folder / manifest.MANIFEST), *self._stamps())

    def _load(self, step: int, weights: str, *stamps: int) -> Trained:
        try:
            return load_step(self.run, manifest.resolve_step(self.workdir, step), weights)
        except FileNotFoundError:
            raise UserError("step", step, "has just gone", "choose another") from None

    def describe(self) -> dict[str, Any]:
        """What there is to choose from, as it is now."""
        config = self.run.config
        workdir = shlex.quote(str(self.workdir))
        return {
            "workdir": str(self.workdir),
            # Of what the browser keeps.
            "shelf": str(self.workdir.resolve()),
            "steps": manifest.finished_steps(self.workdir) or manifest.saved_steps(self.workdir),
            "labels": list(config.data.label_names),
            "latent_dim": config.model.latent_dim,
            "find_directions": f"python -m lwgan.directions --workdir={workdir}",
        }

    def directions(self, step: int, weights: str) -> Directions:
        """The newest that were found at this step, else the newest of any; or none.

        Raises:
          UserError: they are damaged.
        """
        dim = self.run.config.model.latent_dim
        folder = self.workdir / "directions"
        own = list(folder.glob(f"{step:08d}-{weights}*/{VECTORS}"))
        there = own or list(folder.glob(f"*/{VECTORS}"))
        if not there:
            return Directions(np.zeros((0, dim), np.float32), ())
        return read_directions(max(there, key=_stamp).parent, dim)

    def latents(self, scene: Scene) -> np.ndarray:
        """Of each image or frame, before truncation: float32 (B, latent_dim).

        Raises:
          UserError: there is no such direction, or no way through the keyframes.
        """
        trained = self.trained(scene.step, scene.weights)
        latents = np.stack([self._latent(trained, picked) for picked in scene.images])
        if not scene.frames:
            return latents
        if (latents == latents[0]).all():
            raise UserError("images", len(latents), "are all the same", "choose others")
        path = closed_loop(latents, scene.frames)[0]
        return path if scene.frame is None else path[[scene.frame]]

    def _latent(self, trained: Trained, picked: Picked) -> np.ndarray:
        latent = picked.latent
        if latent is None:
            latent = np.asarray(trained.latents(picked.seed, 1))[0]
        moves = {place: far for place, far in picked.moves.items() if far}
        if not moves:
            return latent
        vectors = self.directions(trained.step, trained.weights).vectors
        for place, far in moves.items():
            if place >= len(vectors):
                raise UserError("moves", place, f"there are {len(vectors)} directions", "leave it")
            latent = latent + np.float32(far) * vectors[place]
        return latent

    def draw(self, scene: Scene) -> Iterator[np.ndarray]:
        """Its images or frames as ``lwgan.sample`` writes them, uint8 (H, W, C) each."""
        return map(self.trained(scene.step, scene.weights).unfitted, self._draw(scene))

    def _draw(self, scene: Scene) -> Iterator[np.ndarray]:
        """As the generator draws them."""
        trained, latents = self.trained(scene.step, scene.weights), self.latents(scene)
        seeds = [picked.seed for picked in scene.images]
        seeds = np.array(seeds[:1] * len(latents) if scene.frames else seeds, np.uint32)
        own = Draws(seeds, np.zeros(len(seeds), np.int32))
        noise = None if scene.noise == "zero" else own
        if scene.noise == "fresh":
            noise = own._replace(seeds=np.full_like(seeds, scene.noise_seed))
        labels = trained.drawn_labels(own)
        if scene.label is not None:
            labels = labels_at(np.full(len(seeds), scene.label), trained.label_names)
        images = trained.stream(latents, noise, truncation=scene.truncation, labels=labels)
        return map(to_uint8, images)

    def commands(self, scene: Scene) -> list[str]:
        """What draws each image of a scene, or a frame, perhaps with the latent.npy of it."""
        names, commands = self.run.config.data.label_names, []
        for picked in scene.images[: 1 if scene.frames else None]:
            words = ["python -m lwgan.sample", f"--workdir={shlex.quote(str(self.workdir))}"]
            words += [f"--step={scene.step}", f"--weights={scene.weights}"]
            label = scene.label
            if is_of_seed(picked, scene):
                words.append(f"--seeds={picked.seed}")
            else:
                fresh = scene.noise == "fresh"
                seed = scene.noise_seed if fresh else picked.seed
                words += ["--latents=latent.npy", f"--seed={seed}"]
                if names and label is None:
                    label = int(drawn_labels(*Draws.of_seed(picked.seed, 1), names).argmax())
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

    def nearest(self, scene: Scene) -> list[tuple[str, np.ndarray]]:
        """The training images that are most like the one of a scene, with their names.

        Raises:
          UserError: the dataset is not there.
        """
        (image,) = self._draw(scene)
        near = self._reals(*self._stamps()).nearest(image)
        unfitted = self.trained(scene.step, scene.weights).unfitted
        return [(name, unfitted(real)) for name, real in near]

    def project(self, file: bytes, step: int, weights: str, label: int | None) -> Projected:
        """The latent whose image comes closest to one in a file, without noise.

        Raises:
          UserError: it does not decode.
        """
        data, trained = self.run.config.data, self.trained(step, weights)
        read = lambda _: open_image_file(io.BytesIO(file), "image")  # noqa: E731
        source = Source(["image"], np.zeros((1, 16), np.uint8), "", read, {}, lambda: source)
        try:
            array = read_image(source, 0, data)[1]
        except ValueError as error:
            hint = "choose an image"
            raise UserError("image", "", f"does not decode ({error})", hint) from None
        target = middle(array, shape_of(data.image_size)).astype(np.float32) / 255
        critic = critic_at(self.run, manifest.resolve_step(self.workdir, step))
        own = None if label is None else labels_at(np.array(label), trained.label_names)
        found = find_latent(trained, critic, target, _EFFORT, label=own, with_noise=False)
        its = None if found.label is None else int(found.label.argmax())
        return Projected(found.latent, its, found.psnr)


def is_of_seed(picked: Picked, scene: Scene) -> bool:
    """Whether the image is what its seed alone draws."""
    plain = picked.latent is None and not any(picked.moves.values())
    return plain and scene.noise != "fresh" and not scene.frames


def _stamp(path: pathlib.Path) -> int:
    """Another number once a file is another; 0 if there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _even(frame: np.ndarray) -> np.ndarray:
    """A frame uint8 (H, W, C) of an even height and width, as videos have."""
    height, width = (side % 2 for side in frame.shape[:2])
    return np.pad(frame, ((0, height), (0, width), (0, 0)), "edge")
