"""From results.json to what people read: medians, targets, RESULTS.md and chart.svg."""
