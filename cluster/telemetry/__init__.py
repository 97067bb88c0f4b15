"""What a cluster tells about itself: metrics, declared once, served as Prometheus text."""
