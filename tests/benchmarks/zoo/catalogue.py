"""Every architecture by name, under the family whose builder it is: `builders/FAMILY.py` has a function of that name."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "plain_networks": (
        *("lenet", "vgg", "squeezenet", "inception", "unet", "autoencoder", "conv1d", "tcn"),
        *("transformer_encoder", "lstm", "gru"),
    ),
    "timm_networks": (
        *("resnet", "resnext", "densenet", "mobilenetv2", "mobilenetv3", "efficientnet", "convnext"),
        *("vit", "swin", "mixer"),
    ),
    "transformers_networks": ("bert", "gpt2", "llama"),
    "sklearn_models": ("sklearn_mlp", "sklearn_logistic"),
    "keras_models": ("keras_cnn", "keras_lstm"),
}

FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}
