"""What jobs found: fronts, figures, comparisons, and the files that users download."""
