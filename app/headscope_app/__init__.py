"""The dashboard: run folders in a browser. It reads results, and measures nothing by itself."""
