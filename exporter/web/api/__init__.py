"""What people and their scripts see of the state: views for the JSON API and the pages.

Views are made anew for each request and change nothing. `models` has their shapes, which are those
of the JSON; `jobs` finds and sorts jobs; `status` has accounts, and how busy their polls are.
"""
