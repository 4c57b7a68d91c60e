"""Load pages in a headless Chromium and print as JSON what they asked for, said, and are; run as a program.

Standard input is a JSON list of [path, {name: JavaScript expression}]. Nothing but file:// is let through.
"""

import json
import sys
from typing import Any

from PyQt6.QtCore import QTimer, QUrl
from PyQt6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile, QWebEngineUrlRequestInterceptor
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

SEEN: dict[str, Any] = {"requests": [], "console": [], "pages": []}


class Guard(QWebEngineUrlRequestInterceptor):
    def interceptRequest(self, info: Any) -> None:  # noqa: N802
        SEEN["requests"].append(info.requestUrl().toString())
        info.block(info.requestUrl().scheme() != "file")


class Page(QWebEnginePage):
    def javaScriptConsoleMessage(self, level: Any, message: str, line: int, source: str) -> None:  # noqa: N802
        SEEN["console"].append(f"{source}:{line}: {message}")


class Probe:
    def __init__(self, jobs: list[list[Any]]) -> None:
        self.jobs = jobs
        self.profile, self.guard, self.view = QWebEngineProfile(), Guard(), QWebEngineView()
        self.profile.setUrlRequestInterceptor(self.guard)
        self.page = Page(self.profile, self.view)
        self.view.setPage(self.page)
        self.view.resize(1280, 900)
        self.view.show()
        self.page.loadFinished.connect(self.loaded)

    def next(self) -> None:
        if not self.jobs:
            print(json.dumps(SEEN))  # noqa: T201
            QApplication.exit(0)
            return
        path, self.expressions = self.jobs.pop(0)
        self.view.load(QUrl.fromLocalFile(path))

    def loaded(self, ok: bool) -> None:
        result: dict[str, Any] = {"loaded": ok}
        SEEN["pages"].append(result)
        parts = ", ".join(f"[{json.dumps(name)}]: {code}" for name, code in self.expressions.items())

        def answered(text: Any) -> None:
            result.update(json.loads(text) if text else {"failed": True})
            self.next()

        self.page.runJavaScript(f"JSON.stringify({{{parts}}})", answered)


def main() -> None:
    application = QApplication(sys.argv)
    jobs = json.load(sys.stdin)
    print("started", flush=True)  # noqa: T201
    probe = Probe(jobs)
    QTimer.singleShot(0, probe.next)
    code = application.exec()
    # The page must go before its profile, which Python's own order does not promise.
    del probe.page
    sys.exit(code)


if __name__ == "__main__":
    main()
