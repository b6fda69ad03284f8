"""Reports: each page is one file, says what was met, and escapes what others wrote."""

import html.parser
import re
from pathlib import Path

import matplotlib as mpl
import pytest
import xarray as xr

import xsmall as xs
from xsmall import cli
from xsmall.errors import ParameterError
from xsmall.io.stores.runs import write_run
from xsmall.plot.cube_figures import cube_figures
from xsmall.plot.report import _short_pixels
from xsmall.run.state import RunState

mpl.use("Agg")


class Reader(html.parser.HTMLParser):
    """Collects text, and what pages load; fails where tags are not closed in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.loads: list[str] = []
        self.alts: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.loads += [str(known[k]) for k in ("src", "href") if known.get(k)]
        self.alts += [str(known["alt"])] if "alt" in known else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs 1 (whole), 2 (a chunk of its frames is damaged) and 3 (not there), produced."""
    where = tmp_path_factory.mktemp("report")
    sim = xs.simulate(60, shape=(2, 16, 32), seed=1)
    for run in (1, 2):
        write_run(sim.run, where / f"raw{run}.zarr", chunk_events=20)
    chunk = where / "raw2.zarr" / "jungfrau" / "raw" / "c" / "1" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(data)
    xs.save(sim.constants, where / "constants.zarr")
    xs.save_geometry(sim.geometry, where / "geometry.json", format="xsmall")
    (where / "recipe.toml").write_text(
        'source = "raw{run}.zarr"\n[detectors.epix]\n[detectors.jungfrau]\n'
        'constants = "constants.zarr"\ngeometry = "geometry.json"\n'
        'beam = {photon_energy = "9.5 keV", distance = "0.1 m"}\n'
        '[detectors.jungfrau.reductions]\nwaxs = {kind = "azint", bins = 20}\n'
        'drops = {kind = "droplet", threshold = "4 keV"}\n'
        "[selections.good]\nxray_on = true\n"
        '[cubes.pump]\nselect = "good"\nimages = ["jungfrau"]\n'
        'bins = {delay = {kind = "bins", start = "-2 ps", stop = "5 ps", n = 5}, laser_on = {kind = "categories"}}\n'
    )
    words = ["produce", str(where / "recipe.toml"), "--run", "1-3", "--out", str(where / "out"), "--quiet"]
    assert cli.main(words) == 1
    return where / "out"


def test_cubes_with_weights_and_statistics_have_figures_of_their_results() -> None:
    sim = xs.simulate(60, shape=(1, 16, 32), seed=1)
    cal = sim.run["jungfrau/raw"].sd.calibrate(sim.constants)
    small = cal.sd.reduce({"jungfrau_spot": xs.roi(xs.Box(segment=0))}).compute()[["jungfrau_spot_sum"]]
    bins = {"delay": xs.bins(-3, 6, n=3), "laser_on": xs.categories()}
    for weights, statistics in (("i0", []), ("i0", ["ratio", "min"]), (None, ["max", "sum"])):
        cube = small.isel(roi=0).sd.cube(bins, weights=weights, statistics=statistics)
        titles = [title.removeprefix("cube pump: ") for title, _ in cube_figures("pump", cube, ["jungfrau"])]
        others = [f"jungfrau_spot_sum_{s}" for s in statistics if s != "ratio"]
        per = f", per {weights}" if weights else ""  # pulses of more intensity are no signal
        assert titles == ["events in each bin", f"jungfrau_spot_sum, laser_on true minus false{per}", *others]


def test_each_run_has_a_page_complete_in_itself(folder: Path) -> None:
    for run in (1, 2, 3):
        page = Reader((folder / f"run{run:04d}.html").read_text(encoding="utf-8"))
        assert all(link.startswith("data:image/png;base64,") or link == "index.html" for link in page.loads)
    page = Reader((folder / "run0001.html").read_text(encoding="utf-8"))
    for figure in ("I0", "delay", "time tool", "jungfrau: average", "jungfrau_waxs_intensity", "pedestal and noise"):
        assert any(figure in alt for alt in page.alts), figure
    assert any("in all" in alt for alt in page.alts)
    assert sorted(alt for alt in page.alts if alt.startswith("cube")) == [
        "cube pump: events in each bin",
        "cube pump: jungfrau_drops_n_droplets, laser_on true minus false",
        "cube pump: jungfrau_waxs_intensity, laser_on true minus false",
    ]
    assert "cube pump: 59 of 60 events; alone xray_on == True: 59" in page.text


def test_pages_say_what_was_met(folder: Path) -> None:
    damaged = " ".join(Reader((folder / "run0002.html").read_text(encoding="utf-8")).text)
    assert "20 events could not be read" in damaged
    assert "raw2.zarr" in damaged
    assert "not in this run" in damaged
    assert "not be read" not in " ".join(Reader((folder / "run0001.html").read_text(encoding="utf-8")).text)
    lost = " ".join(Reader((folder / "run0003.html").read_text(encoding="utf-8")).text)
    assert "raw3.zarr: no such file" in lost


def test_pixels_that_lack_in_many_events_are_counted() -> None:
    count = xr.DataArray([[100, 91, 89, 0]], dims=("row", "column"))  # the last one is never used
    [text] = _short_pixels({"jungfrau": xr.Dataset({"average_count": count}), "epix": xr.Dataset()})
    assert text.startswith("jungfrau: 1 pixels are left out")


def test_one_page_is_over_all_runs(folder: Path) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert text.count("<tr>") == 4
    assert {"run0001.html", "run0002.html", "run0003.html"} <= set(page.loads)
    assert sum(alt == "average of jungfrau" for alt in page.alts) == 2
    assert re.search(r'data-key="20">20<', text)


def test_what_others_wrote_is_escaped(tmp_path: Path) -> None:
    RunState(5, "failed", why="<script>alert(1)</script>", messages=["a < b"], skipped={"<b>": "x"}).save(tmp_path)
    index = xs.report(tmp_path)
    assert "<script>alert" not in index.read_text() + (tmp_path / "run0005.html").read_text()
    Reader((tmp_path / "run0005.html").read_text())


def test_a_report_of_one_run_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert xs.report(folder, 2).name == "run0002.html"
    with pytest.raises(ParameterError, match="1, 2, 3"):
        xs.report(folder, 9)
    assert cli.main(["report", str(folder), "--run", "3"]) == 0
    assert capsys.readouterr().out.strip().endswith("run0003.html")
