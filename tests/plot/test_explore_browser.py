"""The explorer in JupyterLab in a real browser without a window: draw with the mouse, read the value back."""

import ast
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

CELL = """
import xsmall as xs
sim = xs.simulate(12, shape=(2, 96, 128), seed=5)
det = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
cal = det.sd.calibrate(sim.constants)
view = cal.sd.explore(frames=4)
view
"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CANVAS = ".jupyter-matplotlib-canvas-div canvas"
PATIENCE = 120_000  # ms: compiling takes its time


@pytest.fixture(scope="module")
def executable() -> str:
    for package in ("playwright", "jupyterlab", "ipympl", "jupyter_client"):
        if find_spec(package) is None:  # the import of ipympl would change how all later tests draw
            pytest.skip(f"{package} is not installed: pip install 'xsmall[browser]'")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser found: one of {', '.join(BROWSERS)} on PATH")
    return found


@pytest.fixture(scope="module")
def lab(executable: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server of JupyterLab with one notebook: its address, and where its kernels say how they are reached."""
    import nbformat

    folder = tmp_path_factory.mktemp("lab")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "look.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "RUNTIME", "DATA")}
    options = [
        "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=seen",
        f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env={**os.environ, **own, "IPYTHONDIR": str(folder / "ipython")}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            _wait_for(port, server)
            yield f"http://127.0.0.1:{port}/lab/tree/look.ipynb?token=seen", folder / "runtime"
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert server.poll() is None, "JupyterLab did not start"
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError("JupyterLab does not answer")


@pytest.fixture(scope="module")
def page(executable: str, lab: tuple[str, Path]) -> Iterator[Any]:
    """The notebook in the browser, its cell run."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1600, "height": 1300})
        shown.goto(lab[0], timeout=PATIENCE)
        shown.wait_for_selector("text=/\\| Idle/", timeout=PATIENCE)  # the kernel is there
        shown.click(".jp-Notebook .jp-Cell .cm-content", timeout=PATIENCE)
        shown.keyboard.press("Control+Enter")
        shown.wait_for_selector(CANVAS, timeout=PATIENCE)
        shown.wait_for_timeout(2000)
        yield shown
        browser.close()


@pytest.fixture(scope="module")
def ask(page: Any, lab: tuple[str, Path]) -> Iterator[Callable[[str], Any]]:
    """Ask the kernel of the notebook for a value."""
    from jupyter_client import BlockingKernelClient

    (connection,) = lab[1].glob("kernel-*.json")
    client = BlockingKernelClient(connection_file=str(connection))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=60)

    def value(expression: str) -> Any:
        told = client.execute("pass", user_expressions={"v": f"repr({expression})"}, reply=True, timeout=120)
        answer = told["content"]["user_expressions"]["v"]
        assert answer["status"] == "ok", answer
        return ast.literal_eval(ast.literal_eval(answer["data"]["text/plain"]))

    yield value
    client.stop_channels()


@pytest.fixture
def drag(page: Any, ask: Callable[[str], Any]) -> Callable[..., None]:
    """Drag the mouse over the picture, between points in mm."""

    def moved(*points: tuple[float, float]) -> None:
        box = page.query_selector_all(CANVAS)[-1].bounding_box()
        places = ask(f"view.mouse.axes.transData.transform({list(points)}).tolist()")
        height, ratio = ask("(float(view.figure.bbox.height), float(view.figure.canvas.device_pixel_ratio))")
        on_screen = [(box["x"] + x / ratio, box["y"] + (height - y) / ratio) for x, y in places]
        page.mouse.move(*on_screen[0])
        page.mouse.down()
        for place in on_screen[1:]:
            page.mouse.move(*place, steps=4)
        page.mouse.up()

    return moved


@pytest.fixture
def until(page: Any) -> Callable[[Callable[[], Any], Any], None]:
    """Wait until something is so."""

    def wait(say: Callable[[], Any], expected: Any) -> None:
        for _ in range(60):
            if say() == expected:
                return
            page.wait_for_timeout(500)
        assert say() == expected

    return wait


Ask = Callable[[str], Any]
Drag = Callable[..., None]
Until = Callable[[Callable[[], Any], Any], None]


def test_a_circle_drawn_with_the_mouse_is_a_value(page: Any, ask: Ask, drag: Drag, until: Until) -> None:
    page.click("button:has-text('circle')")
    until(lambda: ask("view.mouse.tool"), "circle")
    drag((2.0, 2.0), (2.0, 3.0))
    until(lambda: ask("len(view.regions)"), 1)
    found = ask("(*view.regions['region1'].center, view.regions['region1'].radius)")
    assert found == pytest.approx((0.002, 0.002, 0.001), abs=5e-5)
    until(lambda: page.input_value("textarea[disabled]"), ask("view.code()"))
    assert "xs.Circle" in ask("view.code()")


def test_other_figures_of_the_notebook_stay_as_they_were(page: Any, ask: Ask) -> None:
    assert "inline" in ask("__import__('matplotlib').get_backend()")


def test_a_mask_drawn_with_the_mouse_has_its_reason(page: Any, ask: Ask, drag: Drag, until: Until) -> None:
    page.select_option("select:has-text('mask: shadow')", "mask: shadow")
    until(lambda: ask("view.reason"), "shadow")
    drag((-2.0, 2.0), (-2.0, 2.5))
    until(lambda: ask("[reason for _, reason in view.hidden]"), ["shadow"])
    assert ask("bool(view.mask.any())")


def test_clicks_on_a_ring_give_the_centre(page: Any, ask: Ask, drag: Drag, until: Until) -> None:
    page.click("button:has-text('rings')")
    until(lambda: ask("view.mouse.tool"), "rings")
    for n, point in enumerate([(2.5, 1.0), (1.0, 2.5), (-2.5, 1.0), (-1.0, -2.5), (2.5, -1.0)], start=1):
        drag(point, point)
        until(lambda: ask("len(view._clicks.points)"), n)
    assert ask("view.fit.beam.center") == pytest.approx((0, 0), abs=1e-4)
    page.click("button:has-text('undo')")
    until(lambda: ask("len(view._clicks.points)"), 4)


def test_the_read_out_stands_below_the_picture(page: Any, ask: Ask, drag: Drag, until: Until) -> None:
    page.click("button:has-text('look')")
    until(lambda: ask("view.mouse.tool"), "look")
    drag((2.0, 3.0), (2.0, 2.0))
    page.wait_for_selector("text=/segment \\d+ row \\d+ column \\d+/", timeout=PATIENCE)
    assert ask("len(view.regions)") == 1  # looking draws nothing


def test_the_slider_and_the_buttons_do_what_they_say(page: Any, ask: Ask, until: Until) -> None:
    page.click("button:has-text('mean')")  # one event now
    until(lambda: ask("view.title[:8]"), "event 0 ")
    page.click("button:has-text('droplets')")
    until(lambda: ask("view.threshold"), 5.0)
    page.click("button:has-text('undo')")
    until(lambda: ask("len(view.hidden)"), 0)
