"""The metrics of the audit say what was written, and what waits."""

from app.observe.audit_metrics import AUDIT_TABLE, AuditMetrics


def test_metrics_have_what_was_written_and_what_waits():
    metrics = AuditMetrics(["churn"])
    metrics.watch(lambda: {"churn": 7})
    metrics.file_written("churn", 100, 4_000)
    metrics.file_written("churn", 50, 2_000)
    page = metrics.exposition().decode()
    shown = {spec.name: f'{spec.name}{{pipeline="churn"}}' for spec in AUDIT_TABLE}
    assert [line.removeprefix(f"{shown[name]} ") for name in shown for line in page.splitlines()
            if line.startswith(shown[name])] == ["2.0", "150.0", "6000.0", "7.0"]  # fmt: skip


def test_metrics_of_the_process_are_beside_them_as_in_every_program():
    page = AuditMetrics(["churn"]).exposition().decode()
    assert "process_resident_memory_bytes " in page
    assert "process_cpu_seconds_total " in page
