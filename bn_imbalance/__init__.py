"""One class of your images is rare. Which remedy works on your data, and how sure is that?"""
import lazy_loader
__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'core': ['load_settings'], 'evaluate.goal': ['Goal'], 'data.items': ['read_data'],
    'models.final_bn': ['add_final_bn', 'fold_final_bn'], 'models.heads': ['final_bn_learner'],
    'training.loaders': ['imbalanced_dls'], 'training.sweep': ['compare'],
    'deploy.fitting': ['fit'], 'deploy.model': ['load_model'],
    'adapters.estimator': ['FinalBNClassifier'], 'adapters.learners': ['compare_learner']})
