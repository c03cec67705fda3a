"""What people and their scripts see of the state: the JSON API, and views that the pages show too.

Views are made anew for each request and change nothing. `models` has those shapes of the JSON that
are not the state's own, `job_views` finds and sorts jobs, `status_views` shows accounts.
`openapi.json` is the description of the API, which tools/gen_docs.py writes.
"""
