"""The rollout watcher: measurements of the workers → a decision → a change of the rollout page."""
