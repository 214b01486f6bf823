"""What a run leaves on disk, what it prints, and how it stops and resumes."""
