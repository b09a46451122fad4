"""Answers the page over HTTP, to whoever knows the address and nobody else."""

import base64
import io
import json
import socket
from collections.abc import Callable
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from absl import logging
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge
from werkzeug.routing import Map, RequestRedirect, Rule
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from lwgan.errors import UserError, device_errors
from lwgan.page.scenes import Scene, read_checkpoint, read_label, read_scene
from lwgan.page.studio import Studio, is_of_seed
from lwgan.sampling.image_files import encode_image

# Bytes of what the page sends: a photograph, or what it asks for.
_MOST_BYTES, _MOST_WORDS = 64 * 2**20, 2**20
# What only this machine reaches.
LOCAL = ("127.0.0.1", "::1", "localhost")
# What listens to all of a machine's addresses; they may have any name.
_ANY = ("0.0.0.0", "::")
# By their addresses.
_FILES = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
# The page needs nothing from elsewhere, and nobody may frame it or learn its address.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; media-src blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _OwnRequest(Request):
    max_content_length = _MOST_BYTES


class _Quiet(WSGIRequestHandler):
    # Of a request that does not come to its end, in seconds.
    timeout = 60

    def log(self, type: str, message: str, *args: Any) -> None:
        """The address holds the token: it is no matter for a log."""


class Application:
    """The page of a studio below ``/<token>/``, as WSGI."""

    def __init__(self, studio: Studio, token: str, host: str):
        self.studio = studio
        self.hosts = None if host in _ANY else {*LOCAL, host.lower()}
        read = {"run": self._run, **dict.fromkeys(_FILES, self._file)}
        asked = {
            "directions": self._directions,
            "images": self._images,
            "image.png": self._image,
            "latent.npy": self._latent,
            "video.mp4": self._video,
            "nearest": self._nearest,
            "project": self._project,
        }
        self.urls = Map(
            Rule(f"/{token}/{name}", endpoint=answer, methods=[method])
            for method, answers in {"GET": read, "POST": asked}.items()
            for name, answer in answers.items()
        )

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Any:
        request = _OwnRequest(environ)
        try:
            self._require_own_name(environ.get("HTTP_HOST", ""))
            answer, _ = self.urls.bind_to_environ(environ).match()
            with device_errors("images", None, "ask for fewer"):
                response = answer(request)
        except UserError as error:
            response = _said({"error": str(error)}, 400)
        except RequestRedirect as elsewhere:
            response = elsewhere.get_response(environ)
        except HTTPException as error:
            response = _said({"error": f"{error.code} {error.name}"}, error.code)
        except Exception:
            logging.exception("A request failed")
            response = _said({"error": "this went wrong here; see the terminal"}, 500)
        response.headers.update(_HEADERS)
        return response(environ, start_response)

    def _require_own_name(self, host: str) -> None:
        """Another name may be somebody's who has it point here, and reads along."""
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            raise BadRequest from None
        if self.hosts is not None and name not in self.hosts:
            raise BadRequest

    def _file(self, request: Request) -> Response:
        name, kind = _FILES[request.path.rpartition("/")[2]]
        return Response(resources.files("lwgan.page").joinpath(name).read_bytes(), mimetype=kind)

    def _run(self, request: Request) -> Response:
        return _said(self.studio.describe())

    def _scene(self, request: Request) -> Scene:
        config = self.studio.run.config
        labels = len(config.data.label_names)
        return read_scene(_json(request), config.model.latent_dim, labels)

    def _one(self, request: Request) -> Scene:
        scene = self._scene(request)
        if len(scene.images) > 1 and scene.frame is None:
            raise UserError("images", len(scene.images), "must be one", "ask for one")
        return scene

    def _images(self, request: Request) -> Response:
        scene = self._scene(request)
        if scene.frames and scene.frame is None:
            raise UserError("frame", None, "must be one of the frames", "name it")
        with self.studio.lock:
            drawn = [_embedded(image) for image in self.studio.draw(scene)]
        return _said(
            {
                "images": drawn,
                "commands": self.studio.commands(scene),
                "needs_latent": [not is_of_seed(picked, scene) for picked in scene.images],
            }
        )

    def _image(self, request: Request) -> Response:
        scene = self._one(request)
        with self.studio.lock:
            (image,) = self.studio.draw(scene)
        return Response(encode_image(image, ".png"), mimetype="image/png")

    def _latent(self, request: Request) -> Response:
        scene = self._one(request)
        with self.studio.lock:
            latents = self.studio.latents(scene)
        file = io.BytesIO()
        np.save(file, latents)
        return Response(file.getvalue(), mimetype="application/octet-stream")

    def _video(self, request: Request) -> Response:
        scene = self._scene(request)
        if not scene.frames:
            raise UserError("frames", 0, "must be some", "ask for a way")
        with self.studio.lock:
            return Response(self.studio.video(scene._replace(frame=None)), mimetype="video/mp4")

    def _nearest(self, request: Request) -> Response:
        scene = self._one(request)
        with self.studio.lock:
            near = self.studio.nearest(scene)
        return _said([{"name": name, "image": _embedded(own)} for name, own in near])

    def _project(self, request: Request) -> Response:
        asked = request.args.to_dict()
        numbers = {name: asked.get(name, "") for name in ("step", "label")}
        whole = {
            name: int(text) if len(text) <= 16 and text.isdecimal() else text
            for name, text in numbers.items()
            if text
        }
        step, weights = read_checkpoint(asked | {"step": None} | whole)
        label = read_label(whole, len(self.studio.run.config.data.label_names))
        file = request.get_data()
        with self.studio.lock:
            found = self.studio.project(file, step, weights, label)
        return _said(found._asdict() | {"latent": found.latent.tolist()})

    def _directions(self, request: Request) -> Response:
        return _said(self.studio.directions(*read_checkpoint(_json(request))).names)


def open_server(studio: Studio, host: str, port: int, token: str) -> BaseWSGIServer:
    """A server that listens, and answers once it is told to.

    Raises:
      UserError: it cannot listen there.
    """
    application = Application(studio, token, host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = f"{host} cannot be listened to there ({error.strerror or error})"
        raise UserError("--port", port, reason, "choose another") from None
    # The server has its own copy of what listens.
    with listening:
        return make_server(
            host, port, application, threaded=True, request_handler=_Quiet, fd=listening.fileno()
        )


def _json(request: Request) -> dict[str, Any]:
    if (request.content_length or 0) > _MOST_WORDS:
        raise RequestEntityTooLarge
    try:
        asked = json.loads(request.get_data(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadRequest from None
    if not isinstance(asked, dict):
        raise BadRequest
    return asked


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _said(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, mimetype="application/json")


def _embedded(image: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_image(image, ".png")).decode()
