"""The stream surface: poll, batch, score, deliver, commit; assign, revoke, drain."""
