"""What a step is: its declaration, its command line, its exposure, its log and what it records."""
