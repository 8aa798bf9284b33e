"""Results to report on, and a report's page as tables, images and links."""

from html.parser import HTMLParser
from pathlib import Path

import yaml

from lit_mbrl.report.__main__ import main

VOID = {"meta", "link", "img", "br"}


class Parsed(HTMLParser):
    """A page's tables as rows of cells, its images and its links."""

    def __init__(self, path: Path):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}  # by the headings above
        self.images: list[str] = []
        self.links: list[str] = []
        self.colors: set[tuple[str, str]] = set()  # of the labels in tables
        self.text = path.read_text()
        self._open: list[str] = []
        self._headings = {"h1": "", "h2": "", "h3": ""}
        self._color = ""
        self.feed(self.text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        if tag == "img":
            self.images.append(found["src"])
        self.links += [found[key] for key in ("src", "href", "action") if key in found]
        if tag in self._headings:
            self._headings[tag] = ""
        if tag == "tr":
            self._table.append([])
        if tag in ("td", "th"):
            self._table[-1].append("")
        if found.get("class") == "swatch":
            self._color = found["style"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            if tag in self._headings:
                self._headings[tag] += data
        if {"td", "th"} & set(self._open):
            row = self._table[-1]
            row[-1] = " ".join(f"{row[-1]} {data}".split())
            if self._color and row[-1]:
                self.colors.add((row[-1], self._color))
                self._color = ""

    @property
    def _table(self) -> list[list[str]]:
        return self.tables.setdefault(f"{self._headings['h2']}: {self._headings['h3']}", [])


def write(
    folder: Path,
    name: str,
    algorithm: str,
    task: str,
    seed: int,
    returns: list[float],
    finished: bool = True,
    every: int = 1000,
) -> None:
    """A run's results as the callback writes them, 100 seconds an evaluation."""
    place = folder / name / task
    place.mkdir(parents=True, exist_ok=True)
    rows = ["env_step,return_mean,return_std,episode_length,wall_seconds"]
    for i, value in enumerate(returns, start=1):
        rows.append(f"{every * i},{value:.4f},1.0000,10.0000,{100 * i:.4f}")
    (place / f"seed{seed}.csv").write_text("\n".join(rows) + "\n")
    run = {
        "finished": finished,
        "machine": {"cores": 2, "threads": 1},
        "command": "python -m lit_mbrl.fit",
        "commit": "0123456789abcdef-dirty",
        "configuration": {
            "seed_everything": seed,
            "model": {"class_path": f"lit_mbrl.algorithms.{algorithm}"},
            "data": {"env_id": task},
        },
    }
    (place / f"seed{seed}.yaml").write_text(yaml.safe_dump(run))


def made(*arguments: str) -> Parsed:
    """The page of `python -m lit_mbrl.report` with some arguments."""
    assert main([*arguments]) == 0
    return Parsed(Path("report/index.html"))
