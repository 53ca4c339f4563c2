"""The command `fedmosaic`."""

import argparse
import io
import os
import re
import signal
import sys
from typing import NoReturn

from common.errors import ConfigError, DataError, FedmosaicError, ModelError
from common.files import keep_private
from deploy.commands import (
    bench,
    certs,
    compare,
    complete,
    completion,
    doctor,
    export,
    flwr,
    import_files,
    init,
    inspect,
    models,
    node,
    predict,
    pretrain,
    probe,
    quality,
    register,
    run,
    shard,
    split,
    superlink,
    tensorboard,
    watch,
)

COMMANDS = (
    *(init, import_files, split, inspect, shard, complete, probe, quality, run, watch),
    *(predict, export, compare, tensorboard, bench, pretrain),
    models,
    *(certs, superlink, register, node, doctor, flwr, completion),
)
"""In the order of `fedmosaic --help`: data and runs, finished runs, several hosts."""
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 1, 2, 130, 128 + signal.SIGPIPE


class Help(argparse.HelpFormatter):
    """Keeps one line per example: several blanks separate the examples in the text below the options."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if not text.startswith("example: "):
            return super()._fill_text(text, width, indent)
        lines = re.split(r"\s{3,}(?=fedmosaic )", text.removeprefix("example: "))
        return "\n".join([f"{indent}example{'s' * (len(lines) > 1)}:", *(f"{indent}  {line}" for line in lines)])


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 success, 1 failed run, 2 wrong input, 130 interrupted, 141 when the reader of the
    output has closed it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # replace characters that the terminal cannot show
    for number in (signal.SIGTERM, signal.SIGINT):  # scripts start jobs with & that ignore SIGINT
        signal.signal(number, _interrupt)
    keep_private()
    os.environ.setdefault("TQDM_DISABLE", "1")  # hide the progress bars of flwr-datasets
    options = _parsed(parser(), arguments)
    try:
        options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python prints an error at exit
        sys.exit(EXIT_PIPE)
    except (ConfigError, DataError, ModelError) as error:
        _fail(error, EXIT_USAGE)
    except FedmosaicError as error:
        _fail(error, EXIT_FAILED)
    except RuntimeError as error:
        _fail(_of_device(error), EXIT_FAILED)
    except KeyboardInterrupt:
        hint = "; add --resume to continue the run" if hasattr(options, "resume") else ""
        print(f"interrupted: all processes of this command have been stopped{hint}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


def _parsed(made: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options. argparse accepts the positional arguments of a command only in one place."""
    options, left = made.parse_known_args(arguments)
    if not left:
        return options
    told = next((one for one in left if not one.startswith("-")), None)
    hint = f". Put {told} next to the other arguments without a dash" if told and told == left[0] else ""
    made.error(f"unrecognized arguments: {' '.join(left)}{hint}")


def _of_device(error: RuntimeError) -> FedmosaicError:
    """The error of a device with its reason and a remedy. Raises any other error again."""
    from common.hardware.faults import device_error  # loads torch, which the error has loaded before

    known = device_error(error)
    if known is None:
        raise error
    return known


def _fail(error: FedmosaicError, status: int) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(status)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    made = argparse.ArgumentParser(prog="fedmosaic", description="Multimodal federated learning on Flower.")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    for command in commands.choices.values():
        command.formatter_class = Help
    made.set_defaults(parser=made)  # for `fedmosaic completion`
    return made


if __name__ == "__main__":
    main()
