"""unit/ mirrors pipeline/, integration/ builds for real, host/ boots a systemd; support/ helps."""
