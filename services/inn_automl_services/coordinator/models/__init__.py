"""Results of jobs: fronts, figures, comparisons, and the files that users download."""
