"""Notebooks as people see them: two in a real JupyterLab, and the page of one on a phone and on a desktop, in a real browser."""

import os
import re
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

import nbformat
import pytest

from ringtape import datasets
from ringtape.analysis.notebook_pages import chosen, made_for
from ringtape.cli import main
from tests.analysis.browser import CHROMIUM, keep, needed, opened

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1400, "height": 1000}
MINUTE = 60_000
READY = """() => {
    const shown = window.jupyterapp?.shell.currentWidget?.context;
    return shown?.isReady && shown.sessionContext.session?.kernel?.status === 'idle' && shown.path.endsWith(PLACE);
}"""
RUN = """async () => {
    await window.jupyterapp.shell.currentWidget.context.sessionContext.ready;
    await window.jupyterapp.commands.execute('notebook:run-all-cells');
    const cells = window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells;
    return Array.from(cells, cell => cell.toJSON());
}"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "latency.html"
    assert main(["notebook", str(datasets.path("sqlite")), "latency", "--execute", "--html", str(file)]) == 0
    return file


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_page_of_a_notebook_opens_without_a_message_or_a_request_and_never_scrolls_sideways(page_file, size):
    with opened(page_file, size) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert shown.locator("h2").count() >= 8
        pictures = shown.locator("img")
        assert pictures.count() >= 3
        assert shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt.length > 20)")
        assert shown.evaluate("[...document.images].every(image => image.getBoundingClientRect().right <= innerWidth)")
        # The code is there for those who open it, and stays on the screen.
        shown.locator("summary").last.click()
        assert shown.locator("details[open] .code").is_visible()
        assert shown.evaluate("document.documentElement.scrollWidth") <= size["width"]


def announced(log, server):
    """Wait for the address that JupyterLab prints."""
    end = time.monotonic() + 120
    while not (found := re.search(r"http://127\.0\.0\.1:\d+/lab/tree/\S+", log.read_text())):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    return found[0]


@pytest.fixture
def lab(tmp_path):
    """JupyterLab as `ringtape notebook` starts it: its address, and the names of two notebooks in its folder."""
    needed()
    second = tmp_path / "02-latency-sqlite.ipynb"
    nbformat.write(made_for(chosen("02"), {"TRACE": str(datasets.path("sqlite"))}), second)
    settings = {f"JUPYTER_{one}_DIR": str(tmp_path / f".{one}") for one in ("CONFIG", "DATA", "RUNTIME")} | {"IPYTHONDIR": str(tmp_path / ".ipython")}
    settings |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / ".settings"), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / ".workspaces")}
    command = [
        sys.executable,
        "-c",
        "import sys; from ringtape.cli import main; sys.exit(main())",
        "notebook",
        str(datasets.path("git")),
        "01",
        "--no-browser",
    ]
    # What is shown is asked of the application itself: cells that are not on the screen are not in the document.
    (tmp_path / ".CONFIG").mkdir()
    (tmp_path / ".CONFIG/jupyter_lab_config.json").write_text('{"LabApp": {"expose_app_in_browser": true, "extension_manager": "readonly"}}')
    log = tmp_path / "jupyterlab.log"
    with log.open("w") as said:
        server = subprocess.Popen(command, cwd=tmp_path, env=os.environ | settings, stdout=said, stderr=said, start_new_session=True)
    try:
        yield announced(log, server), "01-first-look-git.ipynb", second.name
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def test_two_notebooks_open_and_run_in_jupyterlab(lab):
    from playwright.sync_api import sync_playwright

    address, *names = lab
    host = urlsplit(address).netloc
    token = re.search(r"token=\w+", address)[0]
    complained, strangers = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        try:
            page = browser.new_page(viewport=DESKTOP)
            page.on("console", lambda message: complained.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: complained.append(str(error)))
            page.on("request", lambda request: strangers.append(request.url) if urlsplit(request.url).netloc not in (host, "") else None)
            for name in names:
                # Its own address opens the notebook that the verb made, as it would in the user's browser.
                page.goto(address if name == names[0] else f"http://{host}/lab/tree/{name}?reset&{token}")
                page.wait_for_function(READY.replace("PLACE", repr(name)), timeout=MINUTE)
                cells = page.evaluate(RUN)
                code = [cell for cell in cells if cell["cell_type"] == "code"]
                outputs = [output for cell in code for output in cell["outputs"]]
                assert all(cell["execution_count"] for cell in code), name
                assert {output["output_type"] for output in outputs} == {"display_data"}, name
                # Pictures are drawn where they are scrolled to.
                page.locator("figure img").first.scroll_into_view_if_needed(timeout=MINUTE)
                assert page.evaluate("document.querySelector('figure img').naturalWidth") > 300
                keep(page, f"jupyterlab-{name}-picture.png")
                page.evaluate("window.jupyterapp.commands.execute('notebook:move-cursor-up')")
                page.locator(".jp-WindowedPanel-outer").first.evaluate("panel => panel.scrollTo(0, 0)")
                page.locator("h1").first.wait_for(timeout=MINUTE)
                keep(page, f"jupyterlab-{name}.png")
        finally:
            browser.close()
    assert strangers == []
    assert complained == []
