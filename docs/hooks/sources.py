"""Links from a page to files of the repository outside of docs/: the site has a copy of the file below source/.

A link to a file that does not exist stays as it is, and then the strict build refuses it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]+)")
COPIES = "source"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that pages link to."""
    linked = {
        name
        for page in list(files.documentation_pages())
        for link in LINK.findall(page.content_string)
        if (name := outside(page.src_uri, link, config))
    }
    for name in sorted(linked):
        files.append(File.generated(config, f"{COPIES}/{name}", abs_src_path=str(root(config) / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change the links so that they lead to the copies."""
    here = posixpath.dirname(page.file.src_uri)

    def copied(link: re.Match[str]) -> str:
        name = outside(page.file.src_uri, link[0], config)
        return posixpath.relpath(f"{COPIES}/{name}", here) if name else link[0]

    return LINK.sub(copied, markdown)


def outside(page: str, link: str, config: MkDocsConfig) -> str:
    """The file to which a page's link leads, from the repository's root; "" for one in docs/ or that does not exist."""
    name = posixpath.normpath(posixpath.join(Path(config.docs_dir).name, posixpath.dirname(page), link))
    inside = name.startswith(f"{Path(config.docs_dir).name}/")
    return name if not inside and (root(config) / name).is_file() else ""


def root(config: MkDocsConfig) -> Path:
    """The repository."""
    return Path(config.docs_dir).parent
