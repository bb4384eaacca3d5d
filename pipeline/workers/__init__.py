"""A run in several processes, `workers: N`: Python computes on one core at a time in each, and on as many in all.

The parent starts workers and owns what there is one of: the addresses of messages and metrics, the server. A worker is
today's session with its own engines and its share of the streams. Both talk over a socket pair (`process`, `line`);
messages go through `relay`, metrics are summed by `sums`.
"""
