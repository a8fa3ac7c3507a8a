"""What may be sent to the arm, and how a human's wish becomes a command."""
