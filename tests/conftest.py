"""`pytest -v` shows the numbers that a test measured: record_property("error logits", "1e-07")."""


def pytest_report_teststatus(report):
    measured = getattr(report, "user_properties", ())  # a module that cannot be collected has none
    numbers = [f"{k} {v}" for k, v in measured if k.startswith("error")]
    if report.when == "call" and report.passed and numbers:
        return "passed", ".", (f"PASSED {', '.join(numbers)}", {"green": True})
    return None
