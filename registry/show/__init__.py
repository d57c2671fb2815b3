"""What ``twostep lookup`` says: lists, changes, and why an instance is in or out."""
