"""What more than one part of the project needs."""
