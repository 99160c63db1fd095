"""What a training offers beyond its steps, one callback a file; ``callback`` says what each may do."""
