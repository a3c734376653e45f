"""`pytest -v` shows the numbers that a test measured: record_property("error logits", "1e-07")."""


def pytest_report_teststatus(report):
    numbers = [f"{k} {v}" for k, v in getattr(report, "user_properties", ()) if k.startswith("error")]
    if report.when == "call" and report.passed and numbers:
        return "passed", ".", (f"PASSED {', '.join(numbers)}", {"green": True})
    return None
