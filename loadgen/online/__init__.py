"""Load for the online surfaces: requests at their intended times, whatever the server does meanwhile."""
