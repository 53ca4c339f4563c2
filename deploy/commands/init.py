"""`fedmosaic init`: an experiment to start from with example shards, or the folder of a plugin."""

import argparse
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.files import is_free, whole_folder
from deploy.commands.shared.given import shards_there

STARTING = Path(__file__).with_name("starting_experiment.yaml")
FAMILIES = ("method", "encoder", "model", "strategy", "tracker", "data-set", "completer")
EXPERIMENT, SUITE, EXAMPLE = "experiment.yaml", "suite.yaml", "example"
NEXT = """\
{folder}/experiment.yaml  an experiment with every option explained
{folder}/example/         shards of three sites and a test shard

Look at a shard, and train on all of them:
  fedmosaic inspect {folder}/example/client-0 --out client-0.html
  fedmosaic run {folder}/experiment.yaml --shards {folder}/example --engine processes

Then make shards of your own files: one for each site, and one called "test" if the server has examples:
  fedmosaic import image=pictures audio=sounds text=notes --labels labels.csv --out {folder}/shards/client-0
Enter the number of sites, the modalities and their lengths (see `fedmosaic inspect`) in experiment.yaml, and train:
  fedmosaic run {folder}/experiment.yaml --shards {folder}/shards --engine processes"""

NEXT_PLUGIN = """\
{folder}  a plugin with the {family} {member}: its package, its entry point, and tests

Install it and run its tests:
  pip install --editable {quoted}'[test]'
  pytest {quoted}/tests

Then try it; {folder}/README.md says how to use it on several hosts:
  {command}"""

NEXT_FITTED = """\
This is {folder}/experiment.yaml. Check that every value can be used, and train:
  fedmosaic inspect {shard} --with {folder}/experiment.yaml
  fedmosaic run {folder}/experiment.yaml --shards {shards} --engine inprocess"""

NEXT_SUITE = """

{folder}/suite.yaml compares {methods} methods on the same shards, if there is also a shard {shards}/test:
  fedmosaic bench {folder}/suite.yaml"""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic init`."""
    parser = commands.add_parser(
        "init",
        help="write an experiment to start from, or the folder of a plugin",
        description="Write an experiment file with every option explained, and small shards of three modalities to "
        "try it with. With --shards, write an experiment that fits your own shards: their task, modalities, sizes, "
        "lengths and rates, and a suite that compares methods on them. With --plugin, write a package that adds a "
        "method, encoder, model, strategy, tracker, data set or completer, with the tests of its family.",
        epilog="example: fedmosaic init my-experiment     fedmosaic init --plugin focal-loss --family method",
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a new folder (with --plugin: NAME)")
    parser.add_argument(
        "--shards", type=Path, metavar="SHARDS", help="write an experiment that fits these shards: a folder of shards"
    )
    parser.add_argument("--plugin", metavar="NAME", help="write the folder of a plugin with this name")
    parser.add_argument("--family", choices=FAMILIES, help="what the plugin adds (default: method)")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    _check(options)
    options.folder = options.folder or Path(options.plugin)
    try:
        if not is_free(options.folder):
            raise ConfigError("init", [f"{options.folder} exists and is not empty: choose another folder"])
        with whole_folder(options.folder) as unfinished:
            said = _written(unfinished, options)
    except OSError as error:
        raise ConfigError("init", [f"{options.folder} cannot be written: {error.strerror}"]) from None
    print(said)


def _check(options: argparse.Namespace) -> None:
    """Raises ConfigError for options that cannot be used together."""
    shards_there([options.shards])
    mistakes = []
    if options.folder is None and options.plugin is None:
        mistakes.append("needs DIR, a new folder, or --plugin NAME")
    if options.plugin is not None and options.shards is not None:
        mistakes.append("--plugin and --shards cannot be used together")
    if options.plugin is None and options.family is not None:
        mistakes.append("--family needs --plugin NAME")
    if mistakes:
        raise ConfigError("init", mistakes)
    if options.plugin is not None:
        from deploy.plugin.template import check_name

        check_name(options.plugin)


def _written(folder: Path, options: argparse.Namespace) -> str:
    """Write the folder. Returns the next steps."""
    if options.plugin is not None:
        return _plug_in(folder, options)
    return _fit(folder, options) if options.shards else _start(folder, options)


def _plug_in(folder: Path, options: argparse.Namespace) -> str:
    """Write a package that adds a member to a family. Returns the next steps."""
    from deploy.plugin.template import EXAMPLES, write_plugin

    family = options.family.replace("-", " ") if options.family else "method"
    write_plugin(folder, options.plugin, family)
    member = EXAMPLES[family].members[family].replace("_", "-")
    return NEXT_PLUGIN.format(
        folder=options.folder,
        quoted=shlex.quote(str(options.folder)),
        family=family,
        member=member,
        command=EXAMPLES[family].command,
    )


def _start(folder: Path, options: argparse.Namespace) -> str:
    """Write an experiment with every option and example shards. Returns the next steps."""
    from deploy.progress import working
    from deploy.shards.example_shards import write_example_shards

    shutil.copyfile(STARTING, folder / EXPERIMENT)
    with working("writing example shards"):
        write_example_shards(folder / EXAMPLE)
    return NEXT.format(folder=options.folder)


def _fit(folder: Path, options: argparse.Namespace) -> str:
    """Write an experiment for the user's own shards. Returns the next steps."""
    import yaml

    from common.config.reading import read
    from deploy.shards.fitting import find_shards, fitted
    from deploy.study.bench.starting_suite import methods_for, starting_suite

    name = re.sub(r"[^a-z0-9-]+", "-", options.folder.resolve().name.lower()).strip("-") or "experiment"
    shards = find_shards(options.shards)
    text = fitted(shards, name, options.shards)
    (folder / EXPERIMENT).write_text(text, encoding="utf-8")
    read(folder / EXPERIMENT)
    steps = NEXT_FITTED.format(folder=options.folder, shards=options.shards, shard=shards[0].folder)
    if shards[0].folder != options.shards:
        written = yaml.safe_load(text)
        suite = starting_suite(written, options.shards, options.folder / SUITE)
        (folder / SUITE).write_text(suite, encoding="utf-8")
        steps += NEXT_SUITE.format(folder=options.folder, shards=options.shards, methods=len(methods_for(written)))
    return f"{text}\n{steps}"
