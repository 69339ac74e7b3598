"""Messages to addresses that clients name, by the Standard Webhooks specification 1.0.0."""
