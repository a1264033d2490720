"""Networks: embeddings of time and step size, action heads, observation encoders."""
