"""What every handler uses: the envelope, errors, bodies, parameters, pages, trace ids, idempotency.

Nothing in here knows a customer or an import; the other folders of the API import it.
"""
