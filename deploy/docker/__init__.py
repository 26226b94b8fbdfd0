"""What the containers of docker-compose.yml are built from, and what they are given."""
