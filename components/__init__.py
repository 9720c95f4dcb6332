"""The page: one file per station of the journey. Gradio and plotly live only here and in app.py."""
