"""What happens on the road ahead: the vehicle in the own lane, and events, from tracked boxes."""
