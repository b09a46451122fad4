"""Opens a page to look inside the generator of a run, on this machine.

  python -m lwgan.explore --workdir=runs/quickstart

Prints an address, which only those who know it can use; Ctrl-C ends it. On another machine, let
ssh bring it here: ssh -L 8130:127.0.0.1:8130 machine.
"""

import functools
import secrets

from absl import flags, logging

from lwgan import cli


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    of = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "The run directory.", **of)
    host = "The address to listen to; any other than this machine's own is open to the network."
    flags.DEFINE_string("host", "127.0.0.1", host, **of)
    flags.DEFINE_integer("port", 8130, "The port; 0: any that is free.", 0, 65535, **of)


def serve_page(values: cli.Flags) -> None:
    """Runs the command."""
    from lwgan.page.scenes import read_scene
    from lwgan.page.server import LOCAL, open_server
    from lwgan.page.studio import Studio
    from lwgan.runs import manifest

    studio = Studio(cli.open_run(values).workdir)
    step = manifest.resolve_step(studio.workdir, None)
    token = secrets.token_urlsafe(16)
    server = open_server(studio, values.host, values.port, token)
    # What is wrong with the run shows now, and the first image comes at once.
    list(studio.draw(read_scene({"step": step, "images": [{"seed": 0}]}, 1, 0)))
    if values.host not in LOCAL:
        logging.warning("Whoever reaches %s and knows the address can use it", values.host)
    host = f"[{values.host}]" if ":" in values.host else values.host
    print(f"http://{host}:{server.port}/{token}/", flush=True)
    server.serve_forever()


main = functools.partial(cli.run, define_flags, serve_page)

if __name__ == "__main__":
    main()
