"""Answers the page over HTTP, to whoever knows the address and nobody else."""

import base64
import io
import json
import socket
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
from absl import logging
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from lwgan.errors import UserError, device_errors
from lwgan.page.scenes import Scene, read_scene
from lwgan.page.studio import Studio, as_png, is_of_seed

# Bytes of what the page sends: a photograph.
_MOST_BYTES = 64 * 2**20
_FILES = {"page.css": "text/css", "page.js": "text/javascript"}
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
    def log(self, type: str, message: str, *args: Any) -> None:
        """The address holds the token: it is no matter for a log."""


class Application:
    """The page of a studio below ``/<token>/``, as WSGI."""

    def __init__(self, studio: Studio, token: str, hosts: list[str]):
        self.studio, self.hosts = studio, hosts
        answers = {"": self._page, "run": self._run}
        asked = {
            "images": self._images,
            "image.png": self._image,
            "latent.npy": self._latent,
            "video.mp4": self._video,
            "nearest": self._nearest,
            "project": self._project,
        }
        rules = [Rule(f"/{token}/{name}", endpoint=answer) for name, answer in answers.items()]
        rules += [Rule(f"/{token}/{name}", endpoint=self._file) for name in _FILES]
        for rule in rules:
            rule.methods = {"GET", "HEAD"}
        rules += [
            Rule(f"/{token}/{name}", endpoint=answer, methods=["POST"])
            for name, answer in asked.items()
        ]
        self.urls = Map(rules, redirect_defaults=False)

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Any:
        request = _OwnRequest(environ)
        request.trusted_hosts = self.hosts
        try:
            # Another name may be somebody's who has it point here, and reads along.
            request.host  # noqa: B018
            answer, _ = self.urls.bind_to_environ(environ).match()
            with device_errors("images", None, "ask for fewer"):
                response = answer(request)
        except UserError as error:
            response = _said({"error": str(error)}, 400)
        except HTTPException as error:
            response = _said({"error": f"{error.code} {error.name}"}, error.code)
        except Exception:
            logging.exception("A request failed")
            response = _said({"error": "this went wrong here; see the terminal"}, 500)
        response.headers.update(_HEADERS)
        return response(environ, start_response)

    def _page(self, request: Request) -> Response:
        return Response(_file("page.html"), mimetype="text/html")

    def _file(self, request: Request) -> Response:
        name = request.path.rpartition("/")[2]
        return Response(_file(name), mimetype=_FILES[name])

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
            directions = self.studio.directions(scene.step, scene.weights).names
        return _said(
            {
                "images": drawn,
                "commands": self.studio.commands(scene),
                "needs_latent": [not is_of_seed(picked, scene) for picked in scene.images],
                "directions": directions,
            }
        )

    def _image(self, request: Request) -> Response:
        with self.studio.lock:
            (image,) = self.studio.draw(self._one(request))
        return Response(as_png(image), mimetype="image/png")

    def _latent(self, request: Request) -> Response:
        with self.studio.lock:
            latents = self.studio.latents(self._one(request))
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
        with self.studio.lock:
            (image,) = self.studio.draw(self._one(request))
            near = self.studio.nearest(image)
        return _said([{"name": name, "image": _embedded(own)} for name, own in near])

    def _project(self, request: Request) -> Response:
        step, weights = request.args.get("step", ""), request.args.get("weights", "ema")
        asked = {"step": int(step[:18]) if step.isdecimal() else None, "weights": weights}
        scene = read_scene({**asked, "images": [{"seed": 0}]}, 1, 0)
        with self.studio.lock:
            latent, psnr = self.studio.project(request.get_data(), scene.step, scene.weights)
        return _said({"latent": latent.tolist(), "psnr": psnr})


def open_server(studio: Studio, host: str, port: int, token: str) -> BaseWSGIServer:
    """A server that listens, and answers once it is told to.

    Raises:
      UserError: it cannot listen there.
    """
    local = {"127.0.0.1", "::1", "localhost"}
    hosts = [f"[{name}]" if ":" in name else name for name in local | {host}]
    application = Application(studio, token, hosts)
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


def _file(name: str) -> bytes:
    return resources.files("lwgan.page").joinpath(name).read_bytes()


def _json(request: Request) -> dict[str, Any]:
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
    return "data:image/png;base64," + base64.b64encode(as_png(image)).decode()
