"""Shows in the site what lies outside ``docs/`` where it lies: records of the benchmarks, their reports and charts."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
SHOWN = ("*.md", "*.png", "*.jsonl")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds them, by their paths in the repository."""
    for pattern in SHOWN:
        for path in sorted((ROOT / "benchmarks").rglob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to them are relative to ``docs/``, as a reader of the repository needs them."""
    return markdown.replace("](../benchmarks/", "](benchmarks/")
